"""A data folder on a disk and in a bucket: the same answers from both."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from unittest import mock

import pytest

from gcdis_ray.errors import DataError, StorageError
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.source import LocalFolder, SourceFolder, open_source, source_file

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
        ("a/1.jpg", True, False),
        ("b/2.jpg", True, True),
        ("gone", False, False),
    ]
    assert sorted(name for name, _ in folder.states(".")) == ["a/1.jpg", "b/2.jpg"]
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
    assert folder.state("again/1.jpg") is not None  # what opens by another name still does


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path):
    folder = linked(tmp_path)
    refused = PermissionError(13, "Permission denied")
    with (
        mock.patch("os.scandir", side_effect=refused),
        pytest.raises(DataError, match=r"cannot be listed \(Permission denied\)") as caught,
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
