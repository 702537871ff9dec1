"""The log in a storage: read, added to by several at once, kept from what does not fit."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from gcdis_ray.curating.acts import Name, Reject, standing
from gcdis_ray.curating.log import append, read_log
from gcdis_ray.errors import CurationError
from gcdis_ray.store.storage import open_storage


def test_what_is_added_is_read_and_nothing_is_no_log(tmp_path):
    storage = open_storage(str(tmp_path))
    assert read_log(storage, "key") == []
    assert append(storage, "key", [Reject(1), Name(2, "a")]) == [Reject(1), Name(2, "a")]
    assert append(storage, "key", [Reject(3)])[2:] == [Reject(3)]
    assert append(storage, "key", []) == read_log(storage, "key")
    assert len(read_log(storage, "key")) == 3
    assert read_log(storage, "other") == []


@pytest.mark.parametrize("place", ["folder", pytest.param("bucket", marks=pytest.mark.thorough)])
def test_several_at_once_lose_nothing(tmp_path, request, place):
    storage = open_storage(str(tmp_path))
    if place == "bucket":
        endpoint = request.getfixturevalue("s3_endpoint")
        storage = open_storage(f"s3://bucket/{tmp_path.name}", endpoint)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: append(storage, "key", [Reject(n)]), range(12)))
    assert sorted(act.crop for act in read_log(storage, "key")) == list(range(12))


def test_what_does_not_fit_the_log_as_it_is_by_then_stays_out(tmp_path):
    storage = open_storage(str(tmp_path))
    others = iter([[Name(1, "zebra")], []])

    def check(acts):
        append(storage, "key", next(others))  # meanwhile, in another window
        given = [act.name for act in standing(acts)]
        if len(set(given)) < len(given):
            raise CurationError("a name given twice")

    with pytest.raises(CurationError, match="given twice"):
        append(storage, "key", [Name(2, "zebra")], check)
    assert read_log(storage, "key") == [Name(1, "zebra")]


def test_a_broken_file_is_named(tmp_path):
    storage = open_storage(str(tmp_path))
    append(storage, "key", [Reject(1)])
    storage.write("names/key/00001.json", b'{"act": "undo"}\n{"act": "und')
    with pytest.raises(CurationError, match=r"names/key/00001.json, line 2: not JSON"):
        read_log(storage, "key")
    storage.write("names/key/00001.json", b"\xff")
    with pytest.raises(CurationError, match=r"00001.json: is no UTF-8"):
        read_log(storage, "key")
    storage.delete("names/key")
    storage.write("names/key/00003.json", b"")
    with pytest.raises(CurationError, match=r"00000.json: is missing"):
        read_log(storage, "key")


def test_a_file_of_others_beside_the_log_is_none_of_it(tmp_path):
    storage = open_storage(str(tmp_path))
    append(storage, "key", [Name(1, "a")])
    (tmp_path / "names" / "key" / ".DS_Store").write_bytes(b"x")
    append(storage, "key", [Name(2, "b")])
    assert [act.name for act in read_log(storage, "key")] == ["a", "b"]
