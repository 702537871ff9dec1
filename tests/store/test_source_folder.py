"""A data folder on a disk and in a bucket: the same answers from both."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from unittest import mock

import pytest

from gcdis_ray.errors import DataError, StorageError
from gcdis_ray.store.folder_walk import Entry
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.source import FileState, LocalFolder, SourceFolder, open_source, source_file

FILES = {"a.json": b"{}", "images/1.jpg": b"one", "images/deep/2 ä.jpg": b"two", "image": b""}


@pytest.fixture(params=["folder", "bucket"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> SourceFolder:
    if request.param == "folder":
        for name, data in FILES.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        return open_source(str(tmp_path))
    endpoint = request.getfixturevalue("s3_endpoint")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    place = Prefix(f"s3://bucket/{tmp_path.name}", endpoint)
    for name, data in FILES.items():
        place.write(name, data)
    return open_source(f"s3://bucket/{tmp_path.name}/")


def test_files_are_found_and_read(source: SourceFolder):
    assert sorted(source.names("images")) == ["1.jpg", "deep/2 ä.jpg"]
    assert sorted(source.names(".")) == sorted(FILES)
    for name, data in FILES.items():
        assert source.read(name) == data
        with source.open(name) as stream:
            assert stream.read(2) == data[:2]
        state = source.state(name)
        assert state is not None
        assert state.num_bytes == len(data)
    assert source.has_folder("images/deep")
    assert source.has_folder(".")
    assert source.read("images//deep/./2 ä.jpg") == b"two"


def test_what_is_not_there(source: SourceFolder):
    for ask in (source.read, source.open):
        with pytest.raises(FileNotFoundError):
            ask("images/3.jpg")
    assert source.state("images/3.jpg") is None
    assert source.state("images") is None  # a folder is no file
    assert not source.has_folder("imag")
    assert not source.has_folder("a.json")
    assert list(source.names("imag")) == []


def test_a_file_that_changes_changes_its_state(source: SourceFolder):
    before = source.state("images/1.jpg")
    if source.uri.startswith("s3://"):
        Prefix(source.uri, os.environ["AWS_ENDPOINT_URL"]).write("images/1.jpg", b"eno")
    else:
        path = Path(source.uri, "images/1.jpg")
        path.write_bytes(b"eno")
        os.utime(path, ns=(1, 1))
    after = source.state("images/1.jpg")
    assert before is not None
    assert after is not None
    assert before.num_bytes == after.num_bytes
    assert before != after


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b", "x/..", "a\nb"])
def test_names_stay_inside(source: SourceFolder, name: str):
    for ask in (source.read, source.open, source.state, source.has_folder, source.names):
        with pytest.raises(DataError, match="leaves the folder") as caught:
            ask(name)
        assert caught.value.where == source.uri


def test_workers_get_it(source: SourceFolder):
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301  our own object
    assert copy.read("images/1.jpg") == b"one"


@pytest.mark.parametrize("uri", ["nowhere", "s3://", "s3://bucket/nothing-here"])
def test_no_such_folder(uri: str, s3_endpoint: str, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    with pytest.raises(DataError) as caught:
        open_source(uri)
    assert caught.value.where == "root"


@pytest.mark.parametrize("uri", ["gs://b/x", "https://host/x", "S3://b/x", "file:///x"])
def test_a_scheme_that_nobody_reads_is_named(uri: str):
    with pytest.raises(DataError, match="unknown scheme") as caught:
        open_source(uri)
    assert caught.value.where == "root"
    assert caught.value.what.startswith(f"unknown scheme {uri.partition(':')[0]!r}")


def test_the_data_have_a_service_of_their_own(s3_endpoint: str, tmp_path: Path, monkeypatch):
    uri = f"s3://bucket/{tmp_path.name}"
    Prefix(uri, s3_endpoint).write("a", b"1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert open_source(uri, s3_endpoint).read("a") == b"1"
    with pytest.raises(StorageError, match="not a URL") as caught:
        open_source(uri, "127.0.0.1")
    assert caught.value.where == "endpoint"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL: not a URL"):
        open_source(uri)


@pytest.mark.parametrize(
    ("uri", "folder", "name"),
    [
        ("s3://bucket/a/b.json", "s3://bucket/a", "b.json"),
        ("s3://bucket/b.json", "s3://bucket", "b.json"),
        ("/a/b.json", "/a", "b.json"),
        ("/b.json", "/", "b.json"),
        ("b.json", str(Path().absolute()), "b.json"),
    ],
)
def test_a_file_on_its_own(uri: str, folder: str, name: str):
    found, called = source_file(uri)
    assert (found.uri, called) == (folder, name)


def test_failures_of_the_service_name_the_place(s3_endpoint: str, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    with pytest.raises(StorageError, match="s3://nobody/x"):
        open_source("s3://nobody/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with (
        mock.patch("botocore.endpoint.time.sleep"),
        pytest.raises(StorageError, match=r"s3://bucket/x: S3 cannot be reached"),
    ):
        open_source("s3://bucket/x")


def linked(tmp_path: Path) -> LocalFolder:
    """Files in two folders, one of them outside; links to both, in circles, and to nowhere."""
    for name in ("d/a/1.jpg", "elsewhere/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "d/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "d/a/up").symlink_to(tmp_path / "d")
    (tmp_path / "d/gone").symlink_to(tmp_path / "nowhere")
    return LocalFolder(str(tmp_path / "d"))


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path):
    folder = linked(tmp_path)
    assert sorted(folder.names(".")) == ["a/1.jpg", "b/2.jpg"]
    assert sorted(folder.entries(".")) == [
        Entry("a/1.jpg"),
        Entry("b/2.jpg", outside=True),
        Entry("gone", "links that lead nowhere", is_link=True),
    ]
    assert {name: state.changed for name, state in folder.states(".") if state.num_bytes == 0} == {
        "a/1.jpg": str(os.stat(tmp_path / "d/a/1.jpg").st_mtime_ns),
        "b/2.jpg": str(os.stat(tmp_path / "elsewhere/2.jpg").st_mtime_ns),
        "a/up": "to .",
        "b": f"to {tmp_path / 'elsewhere'}",
    }
    assert list(folder.names("b")) == ["2.jpg"]


def test_a_link_to_itself_hides_nothing_else(tmp_path: Path):
    folder = linked(tmp_path)
    (tmp_path / "d/a/0").symlink_to("0")
    os.mkfifo(tmp_path / "d/a/pipe")
    assert sorted(folder.names(".")) == ["a/1.jpg", "b/2.jpg"]


def test_a_folder_is_listed_once_whatever_leads_to_it(tmp_path: Path):
    folder = linked(tmp_path)
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "d")
    (tmp_path / "d/again").symlink_to("a")
    (tmp_path / "d/c").symlink_to(tmp_path)  # a folder that it lies in
    assert sorted(folder.names(".")) == ["a/1.jpg", "b/2.jpg"]
    for one in range(9):  # every one leads to all others: 9! ways
        (tmp_path / f"d/n{one}").mkdir()
        (tmp_path / f"d/n{one}/3.jpg").touch()
        for other in range(9):
            (tmp_path / f"d/n{one}/to{other}").symlink_to(tmp_path / f"d/n{other}")
    assert len(list(folder.names("."))) == 11
    kinds = {entry.name: entry.kind for entry in folder.entries(".") if entry.kind != "file"}
    assert kinds == {"gone": "links that lead nowhere", "c": "links to folders they lie in"}
    assert folder.state("again/1.jpg") is not None  # what opens by another name still does


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path):
    folder = linked(tmp_path)
    refused = PermissionError(13, "Permission denied")
    with (
        mock.patch("os.scandir", side_effect=refused),
        pytest.raises(DataError, match=r"cannot be read \(Permission denied\)") as caught,
    ):
        list(folder.names("a"))
    assert caught.value.where == str(tmp_path / "d/a")


def test_the_state_of_what_lies_behind_links_changes_with_it(tmp_path: Path):
    folder = linked(tmp_path)
    before = dict(folder.states("."))
    os.utime(tmp_path / "elsewhere/2.jpg", ns=(1, 1))
    after = dict(folder.states("."))
    assert before["a/1.jpg"] == after["a/1.jpg"]
    assert before["b/2.jpg"] != after["b/2.jpg"]


@pytest.mark.parametrize("asked", ["os.scandir", "os.stat"])  # to list it, and to enter it
@pytest.mark.parametrize("error", [PermissionError(13, "no"), OSError(5, "broken")])
def test_a_folder_below_that_may_not_be_read_is_told(tmp_path: Path, asked: str, error: OSError):
    folder = linked(tmp_path)
    (tmp_path / "d/lost+found").mkdir()
    genuine = {"os.scandir": os.scandir, "os.stat": os.stat}[asked]

    def refused(place, **more):
        if "lost+found" in os.fspath(place):
            raise error
        return genuine(place, **more)

    with mock.patch(asked, refused):
        if isinstance(error, PermissionError):
            found = {entry.name: entry.kind for entry in folder.entries(".")}
            assert found["lost+found"] == "folders that cannot be read"
            assert sorted(folder.names(".")) == ["a/1.jpg", "b/2.jpg"]
        else:  # an outage changes no result
            with pytest.raises(DataError, match=r"lost\+found: the folder cannot be read \(broken"):
                list(folder.names("."))


def test_links_to_what_lies_around_them_are_not_followed(tmp_path: Path):
    folder = linked(tmp_path)
    (tmp_path / "elsewhere/deep").mkdir()
    (tmp_path / "elsewhere/deep/top").symlink_to(tmp_path)
    (tmp_path / "d/around.jpg").touch()
    (tmp_path / "d/a/deep").mkdir()
    (tmp_path / "d/a/deep/one").symlink_to("../..")
    assert {entry.name: entry.kind for entry in folder.entries("a")} == {
        "1.jpg": "file",
        "up": "links to folders they lie in",
        "deep/one": "links to folders they lie in",
    }
    assert {entry.kind for entry in folder.entries("b") if entry.name == "deep/top"} == {
        "links to folders they lie in"
    }
    states = dict(folder.states("a", listed=True))  # who names files may name deep/one/around.jpg
    assert "deep/one/around.jpg" in states
    assert states["up"] == states["deep/one"] == FileState(0, "to .")
    assert "deep/top/d/around.jpg" not in dict(folder.states("b", listed=True))


def test_what_lies_outside_is_told(tmp_path: Path):
    folder = linked(tmp_path)
    (tmp_path / "d/a/3.jpg").symlink_to(tmp_path / "elsewhere/2.jpg")
    (tmp_path / "d/a/4.jpg").symlink_to("1.jpg")
    assert sorted(folder.outside(".")) == ["a/3.jpg", "b/2.jpg"]


def test_names_of_one_file_have_one_real_name(tmp_path: Path):
    folder = linked(tmp_path)
    (tmp_path / "d/c").symlink_to("a")
    (tmp_path / "d/a/3.jpg").symlink_to("1.jpg")
    names = {
        "a/1.jpg": "a/1.jpg",
        "./a//1.jpg": "a/1.jpg",
        "c/1.jpg": "a/1.jpg",
        "c/3.jpg": "a/1.jpg",
        "b/2.jpg": str(tmp_path / "elsewhere/2.jpg"),
        "nowhere/1.jpg": "nowhere/1.jpg",
        "../d/a/1.jpg": "../d/a/1.jpg",
        "/etc/1.jpg": "/etc/1.jpg",
        "a\0/1.jpg": "a\0/1.jpg",
    }
    assert dict(zip(names, folder.real_names(names), strict=True)) == names


def test_what_is_no_file_does_not_open(tmp_path: Path):
    folder = linked(tmp_path)
    os.mkfifo(tmp_path / "d/pipe")
    (tmp_path / "d/linked").symlink_to("pipe")
    for name in ("pipe", "linked"):  # none of these waits for who writes
        assert folder.state(name) is None
        for ask in (folder.open, folder.read, lambda name: folder.head(name, 1)):
            with pytest.raises(FileNotFoundError):
                ask(name)
    with pytest.raises(IsADirectoryError):
        folder.read("a")


def test_the_start_of_a_file(source: SourceFolder):
    assert source.head("images/1.jpg", 2) == b"on"
    assert source.head("images/1.jpg", 99) == b"one"
    assert source.head("image", 2) == b""
    with pytest.raises(FileNotFoundError):
        source.head("images/3.jpg", 2)
