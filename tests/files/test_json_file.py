"""JSON files of any size, and those that are broken or hostile: a named error each."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from coco_folder import write_json
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.errors import DataError
from gcdis_ray.files import json_file, json_outline
from gcdis_ray.files.json_file import JsonFile, ParsedFile, open_lists, stream
from gcdis_ray.files.json_outline import read_outline
from gcdis_ray.store.source import open_source


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 50, "nested more than 32 deep"),
        ('{"images": ' + '{"a": ' * 100_000, "nested more than 32 deep"),
        ('{"images": [{"id": ' + "9" * 1_000_000 + "}]}", "beyond 64 bits"),
        ('{"images": [{"id": ' + "9" * 6_000_000 + "}]}", "number of more than 4194304 bytes"),
        ('{"images": [{"file_name": "' + "a," * 3_000_000 + '"}]}', "a string or number of more"),
        ('{"x": {"' + "a" * 5_000_000 + '": 1}}', "a string or number of more than"),
        ("{" + ",".join(f'"{i}": 1' for i in range(10_001)) + "}", "more than 10000 keys"),
    ],
)  # fmt: skip
def test_deep_and_huge(tmp_path: Path, text: str, reason: str):
    (tmp_path / "huge.json").write_text(text)
    with pytest.raises(DataError, match=reason) as caught:
        JsonFile(open_source(str(tmp_path)), "huge.json")
    assert len(str(caught.value)) < 500


def test_huge_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_outline, "MAX_RECORD_BYTES", 1 << 18)
    numbers = ",".join(["1"] * 100_000)
    (tmp_path / "many.json").write_text(f'{{"annotations": [[{numbers}], [{numbers}]]}}')
    JsonFile(open_source(str(tmp_path)), "many.json")  # 200 kB each
    (tmp_path / "huge.json").write_text(f'{{"annotations": [[{numbers},{numbers}]]}}')
    with pytest.raises(DataError, match="a record of more than 262144 bytes"):
        JsonFile(open_source(str(tmp_path)), "huge.json")


def test_memory_stays_bounded(tmp_path: Path):
    """A string of 100 MB is refused after the first few of them."""
    import tracemalloc

    class Endless:
        """Begins a string that never ends; counts what is asked for."""

        given = 0

        def read(self, size: int) -> bytes:
            assert self.given < 100_000_000, "reads on and on"
            start = b'{"images": [{"file_name": "' if not self.given else b""
            self.given += size
            return start + b"x" * (size - len(start))

    stream: Any = Endless()
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="a string or number of more than"):
            read_outline(stream, "endless.json")
        assert stream.given < 2 * json_outline.MAX_TOKEN_BYTES
        assert tracemalloc.get_traced_memory()[1] < 8 * json_outline.MAX_TOKEN_BYTES
    finally:
        tracemalloc.stop()


def test_reading_stops_where_a_list_ends(tmp_path: Path):
    write_json(
        tmp_path / "a.json", {"images": [{"id": i} for i in range(9)], "rest": [{}] * 90_000}
    )
    file = JsonFile(open_source(str(tmp_path)), "a.json")
    consumed = []

    class Folder:
        uri = str(tmp_path)

        def open(self, name: str):
            stream = (tmp_path / name).open("rb")

            class Counted:
                def read(self, size: int) -> bytes:
                    consumed.append(size)
                    return stream.read(size)

                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    stream.close()

            return Counted()

    file.folder = Folder()  # pyright: ignore[reportAttributeAccessIssue]
    assert len(list(file.records("images"))) == 9
    assert sum(consumed) < (tmp_path / "a.json").stat().st_size


def test_outlines(tmp_path: Path):
    data = {
        "info": {"a": [1, 2]},
        "images": [{"id": 7, "tags": ["x"], "note": None}, 5, []],
        "n": 1,
    }
    write_json(tmp_path / "a.json", data)
    outline = JsonFile(open_source(str(tmp_path)), "a.json").outline
    assert outline.keys == {"info", "images", "n"}
    assert outline.lists == {"images": 3}
    assert outline.first == {"images": {"id": 7, "note": None}}
    assert outline.fields == {"images": {"id", "tags", "note"}}
    write_json(tmp_path / "b.json", [{"id": 1}, {"id": 2}])
    outline = JsonFile(open_source(str(tmp_path)), "b.json").outline
    assert (outline.lists, outline.first) == ({"": 2}, {"": {"id": 1}})
    write_json(tmp_path / "c.json", {"images": {"id": 1}})
    with pytest.raises(DataError, match="'images' is no list"):
        next(JsonFile(open_source(str(tmp_path)), "c.json").records("images"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**40) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(VALUES)
@examples(200)
def test_outlines_tell_what_is_there(value: Any):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder, "a.json"), value)
        file = JsonFile(open_source(folder), "a.json")
        top = {"": value} if isinstance(value, list) else value if isinstance(value, dict) else {}
        lists = {name: entries for name, entries in top.items() if isinstance(entries, list)}
        assert file.outline.keys == (set(value) if isinstance(value, dict) else set())
        assert file.outline.lists == {name: len(entries) for name, entries in lists.items()}
        for name, entries in lists.items():
            first = entries[0] if entries and isinstance(entries[0], dict) else {}
            plain = {k: v for k, v in first.items() if k and not isinstance(v, list | dict)}
            assert file.outline.first[name] == plain
            assert file.outline.fields[name] == set(first)
            if name and "." not in name and all(isinstance(entry, dict) for entry in entries):
                assert list(file.records(name)) == entries


# ---------------------------------------------------------------- what is wrong, and where


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ('{"images": [{"id": 1}, {"id": NaN}]}', "images[1]", "not valid JSON (NaN and Inf"),
        ('[{"id": 1}, {"a": [[-Infinity', "[1]", "not valid JSON (NaN and Inf"),
        ('[{"id": 1}, {"id": 2}', "[2]", "the file ends in the middle (truncated JSON)"),
        ('[{"id": 1}, {"id"', "[1]", "the file ends in the middle (truncated JSON)"),
        ('{"images": [{"id": 1}], "n": 1' + "0" * 20 + "}", "", "a whole number beyond 64 bits"),
        ('{"images": [{"id": "\udcff"}]}', "images[0]", "not UTF-8 text"),
        ('[{"id": 1}] 3', "", "not valid JSON"),
        (" ", "", "the file ends in the middle (truncated JSON)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("parsed", [False, True])
def test_mistakes_are_named_with_their_place(
    tmp_path: Path, text: str, place: str, reason: str, parsed: bool
):
    data = text.encode("utf-8", "surrogateescape")
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        open_lists(path) if parsed else stream(path)
    where = f"{path}: {place}: " if place else f"{path}: "
    assert str(caught.value).startswith(where + reason)
    assert f", at or before byte {len(data)}\n" in str(caught.value)


def test_an_empty_file_is_called_so(tmp_path: Path):
    (tmp_path / "a.json").touch()
    for read in (open_lists, stream):
        with pytest.raises(DataError, match=r"a\.json: the file is empty\n.*write or copy"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("content", [{"a": [{}, 5], "b": 1}, [{}, 5]])
def test_what_is_not_there_is_named(tmp_path: Path, content: Any):
    write_json(tmp_path / "a.json", content)
    section = "" if isinstance(content, list) else "a"
    for file in (open_lists(tmp_path / "a.json", "mend it"), stream(tmp_path / "a.json")):
        for name, reason in [
            (section, rf"a\.json: {section}\[1\]: a record must be an object, not int"),
            ("c", "no 'c' in it"),
            *([] if not section else [("b", "'b' is no list"), ("", "a.json: is no list")]),
        ]:
            with pytest.raises(DataError, match=reason):
                list(file.records(name))
    for opened in (open_lists, stream):
        with pytest.raises(DataError, match=r"none\.json: no such file"):
            opened(tmp_path / "none.json")
        with pytest.raises(DataError, match="Is a directory"):
            opened(tmp_path)


# ---------------------------------------------------------------- parsed at once


@given(st.dictionaries(st.text("abc.", max_size=2), VALUES, max_size=4))
@examples(100)
def test_a_parsed_file_holds_what_a_stream_gives(value: Any):
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder, "a.json"), value)
        parsed, streamed = open_lists(Path(folder, "a.json")), stream(Path(folder, "a.json"))
        assert isinstance(parsed, ParsedFile)
        assert (set(parsed.keys), dict(parsed.lists)) == (streamed.keys, streamed.lists)
        assert parsed.path == streamed.path
        for name in parsed.lists:
            if name and "." not in name and all(isinstance(entry, dict) for entry in value[name]):
                assert list(parsed.records(name)) == list(streamed.records(name)) == value[name]


def test_what_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Large files, lists, and numbers that a stream could not give."""
    path = tmp_path / "a.json"
    write_json(path, {"a": [{"id": 2**63 - 1}]})
    assert isinstance(open_lists(path), ParsedFile)
    monkeypatch.setattr(json_file, "MAX_PARSED_BYTES", path.stat().st_size - 1)
    assert isinstance(open_lists(path), JsonFile)
    monkeypatch.undo()
    write_json(path, [{"id": 1}])
    assert isinstance(open_lists(path), JsonFile)
    write_json(path, {"a": [{"id": 2**63}]})
    with pytest.raises(DataError, match=r"a\[0\]: a whole number beyond 64 bits"):
        open_lists(path)
