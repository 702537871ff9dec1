"""The create-only commit and damage detection, on a folder and over HTTP against S3."""

from __future__ import annotations

import dataclasses
import os
import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import SCHEMAS

from gcdis_ray.errors import ArtifactError, StorageError
from gcdis_ray.run.attempt import Attempt, GroupWriter, finished_units
from gcdis_ray.run.garbage import collect
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.store.artifacts import FileRecord, Manifest
from gcdis_ray.store.meter import metering
from gcdis_ray.store.schemas import IMAGES
from gcdis_ray.store.storage import (
    LocalStorage,
    Storage,
    commit,
    encode_table,
    open_artifact,
    open_storage,
    read_manifest,
)


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return LocalStorage(str(tmp_path / "store"))
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_storage(f"s3://bucket/{tmp_path.name}", endpoint)


def _manifest(files: dict[str, list[FileRecord]], created: str = "now") -> Manifest:
    return Manifest("count", "k1", 1, {"a": 1}, {}, 0, None, files, created=created)


def _history(rows: int) -> pa.Table:
    return pa.table(
        {"step": pa.array(range(rows), pa.int64()), "name": ["loss"] * rows, "value": [0.5] * rows}
    )


def test_write_read_list_delete(storage: Storage):
    storage.check()
    storage.write("a/b/one", b"1")
    storage.write("a/b/one", b"22")
    storage.write("a/c/two", b"333")
    assert storage.read("a/b/one") == b"22"
    assert storage.list("a") == {"a/b/one": 2, "a/c/two": 3}
    assert storage.folders("a") == ["b", "c"]
    assert storage.newest("a") > 1e9
    storage.delete("a/b")
    assert storage.list("a") == {"a/c/two": 3}
    with pytest.raises(FileNotFoundError):
        storage.read("a/b/one")


def test_a_stream_is_there_once_it_ends(storage: Storage):
    with metering() as meter, storage.writing("a/one") as file:
        file.write(b"01234")
        file.write(b"56789")
        assert storage.list("a") == {}
    assert storage.read("a/one") == b"0123456789"
    assert meter.written_bytes == 10
    with suppress(ZeroDivisionError), storage.writing("a/one") as file:
        file.write(b"half of it")
        raise ZeroDivisionError
    assert storage.read("a/one") == b"0123456789"
    assert storage.list("a") == {"a/one": 10}


def test_a_part_of_a_file(storage: Storage):
    storage.write("a/one", b"0123456789")
    with metering() as meter:
        assert storage.read_part("a/one", 3, 4) == b"3456"
    assert meter.read_bytes == 4
    assert storage.read_part("a/one", 0, 0) == b""
    assert storage.read_part("a/one", 8, 9) == b"89"
    assert storage.read_part("a/one", 10, 1) == b""
    for size in (0, 1):
        with pytest.raises(FileNotFoundError):
            storage.read_part("a/two", 0, size)


def test_paths_stay_inside(storage: Storage):
    for path in ("../x", "/etc/passwd", "a/../../x"):
        with pytest.raises(StorageError):
            storage.write(path, b"")


def test_one_winner_of_a_race(storage: Storage):
    for round_ in range(10):
        with ThreadPoolExecutor(8) as pool:
            wins = list(pool.map(lambda i, r=round_: storage.create(f"r/{r}", b"%d" % i), range(8)))
        assert wins.count(True) == 1
        assert storage.read(f"r/{round_}") == b"%d" % wins.index(True)


def test_commit_is_adopted_by_the_loser(storage: Storage):
    first, second = _manifest({}, "first"), _manifest({}, "second")
    assert commit(storage, first) == first
    assert commit(storage, second) == first
    assert read_manifest(storage, "count", "k1") == first


def test_storage_pickles(storage: Storage):
    storage.write("x", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("x") == b"1"  # noqa: S301  our own object


def test_units_survive_an_attempt(storage: Storage):
    attempt = Attempt(storage, "discover/k", "attempt-1", SCHEMAS)
    writer = GroupWriter(attempt, ("history",), "history")
    for index in (0, 2):
        writer.write(index, ShardOutput({"history": _history(index + 1)}, {"seen": index}))
    assert read_manifest(storage, "discover", "k") is None
    units = finished_units(storage, "discover/k")
    assert set(units) == {"history/00000", "history/00002"}
    assert units["history/00002"].counts == {"seen": 2}
    record = units["history/00002"].files["history"][0]
    assert record.rows == 3
    storage.write(f"discover/k/{record.path}", b"short")  # a file cut off: not a finished unit
    assert set(finished_units(storage, "discover/k")) == {"history/00000"}


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
def test_damage_is_found(storage: Storage, damage: str):
    attempt = Attempt(storage, "count/k1", "attempt-1", SCHEMAS)
    record = attempt.table("history", _history(5))
    manifest = commit(storage, _manifest({"history": [record]}))
    artifact = open_artifact(storage, manifest, SCHEMAS)
    assert artifact.table("history").read().num_rows == 5
    path = f"count/k1/{record.path}"
    data = storage.read(path)
    if damage == "remove":
        storage.delete("count/k1/attempt-1")
    else:
        flipped = bytes([data[20] ^ 1])
        storage.write(
            path,
            {"flip": data[:20] + flipped + data[21:], "cut": data[:-1], "grow": data + b"x"}[
                damage
            ],
        )
    with pytest.raises(ArtifactError, match=r"damaged|gone"):
        artifact.table("history").read()


def test_many_finished_units_are_read_together(storage: Storage):
    attempt = Attempt(storage, "discover/k", "attempt-1", SCHEMAS)
    for index in range(40):
        attempt.finish(f"history/{index:05d}", {}, {"seen": index})
    running, most, lock = 0, 0, threading.Lock()
    read = type(storage).read

    def slow(self: Storage, path: str) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        data = read(self, path)
        with lock:
            running -= 1
        return data

    with mock.patch.object(type(storage), "read", slow):
        units = finished_units(storage, "discover/k")
    assert [units[f"history/{i:05d}"].counts["seen"] for i in range(40)] == list(range(40))
    assert most > 4


def test_gc_keeps_what_a_manifest_names(storage: Storage):
    done, other = "0" * 24, "1" * 24
    used = Attempt(storage, f"count/{done}", "attempt-used", SCHEMAS)
    files = {"history": [used.table("history", _history(2))]}
    manifest = commit(storage, dataclasses.replace(_manifest(files), key=done))
    Attempt(storage, f"count/{done}", "attempt-lost", SCHEMAS).table("history", _history(9))
    storage.write(f"count/{done}/train/checkpoint", b"x")
    Attempt(storage, f"count/{other}", "attempt-running", SCHEMAS).table("history", _history(1))
    storage.write("count/mine/notes", b"not an artifact")
    storage.write("photos/images/a.jpg", b"not a stage")
    assert list(collect(storage, ["count"], 24, delete=True)) == []  # everything is younger
    gone = {folder for folder, _ in collect(storage, ["count"], -1, delete=False)}
    lost, train = f"count/{done}/attempt-lost", f"count/{done}/train"
    assert gone == {lost, train, f"count/{other}"}
    list(collect(storage, ["count"], -1, delete=True))
    assert open_artifact(storage, manifest, SCHEMAS).table("history").read().num_rows == 2
    assert storage.folders("count") == [done, "mine"]
    assert storage.folders("photos") == ["images"]


def test_extension_types_are_refused(tmp_path: Path):
    storage = LocalStorage(str(tmp_path))
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float64(), [1]), pa.array([[0.5]], pa.list_(pa.float64(), 1))
    )
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"step": [1], "name": ["x"], "value": tensor}), sink)
    record = Attempt(storage, "count/k1", "attempt-1", SCHEMAS)._write(
        "history/part-00000.parquet", sink.getvalue().to_pybytes(), 1
    )
    artifact = open_artifact(storage, _manifest({"history": [record]}), SCHEMAS)
    with pytest.raises(ArtifactError):
        artifact.table("history").read()


def test_equal_tables_give_equal_bytes():
    assert encode_table(_history(100)) == encode_table(_history(100))


def test_encoded_images_are_stored_as_they_are():
    """No dictionary, no statistics, no compression, groups of rows that can be read alone."""
    blob = random.Random(0).randbytes(1000)
    rows = [
        dict(
            image_id=i,
            uri=f"{i}.jpg",
            bytes=blob,
            turn=1,
            height_px=1,
            width_px=1,
            sha256="",
            split="",
        )
        for i in range(600)
    ]
    data = encode_table(pa.Table.from_pylist(rows, IMAGES))
    assert len(data) < 1.05 * 600 * len(blob)
    stored = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert [stored.row_group(i).num_rows for i in range(stored.num_row_groups)] == [256, 256, 88]
    for group in range(stored.num_row_groups):
        column = stored.row_group(group).column(2)
        assert column.path_in_schema == "bytes"
        assert column.compression == "UNCOMPRESSED"
        assert not column.has_dictionary_page
        assert column.statistics is None


@pytest.mark.timeout(60)
def test_unreachable_endpoint_is_one_line():
    with (
        mock.patch.dict(os.environ, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="y"),
        pytest.raises(StorageError, match="cannot be reached") as caught,
    ):
        open_storage("s3://bucket/x", "http://127.0.0.1:9").check()
    assert "AWS_ENDPOINT_URL" in str(caught.value)


def test_missing_bucket_is_a_storage_error(s3_endpoint: str):
    with pytest.raises(StorageError, match="NoSuchBucket"):
        open_storage("s3://nobody/x", s3_endpoint).check()


def test_unwritable_folder(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        open_storage(str(tmp_path / "file" / "below")).check()


def test_a_folder_that_lets_files_be_created_twice_is_named(tmp_path: Path):
    def copy(source: str, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes())

    with mock.patch("os.link", copy), pytest.raises(StorageError, match="created twice"):
        open_storage(str(tmp_path)).check()
    assert list(tmp_path.iterdir()) == []


def test_unknown_scheme():
    with pytest.raises(StorageError, match="scheme"):
        open_storage("ftp://host/x")


def test_refused_credentials_are_one_line(s3_endpoint: str):
    """The server checks nobody by default; a client error as AWS sends it is raised instead."""
    from botocore.exceptions import ClientError

    from gcdis_ray.store import s3

    refusal = ClientError({"Error": {"Code": "InvalidAccessKeyId"}}, "PutObject")
    client = mock.Mock()
    client.put_object.side_effect = refusal
    with (
        mock.patch.object(s3, "client", return_value=client),
        pytest.raises(StorageError, match="InvalidAccessKeyId") as caught,
    ):
        open_storage("s3://bucket/x", s3_endpoint).check()
    assert "AWS_ACCESS_KEY_ID" in str(caught.value)
