"""Streams, uploads and listings of a bucket, and what becomes of a service that fails."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import ijson
import pytest
from flaky_service import FlakyService, flaky_service

from gcdis_ray.errors import StorageError
from gcdis_ray.store import s3
from gcdis_ray.store.s3 import PART_BYTES, Prefix

MIB = 1 << 20


@pytest.fixture
def flaky(s3_endpoint: str) -> Iterator[FlakyService]:
    with flaky_service(s3_endpoint) as service:
        yield service


@pytest.fixture
def prefix(flaky: FlakyService, tmp_path: Path) -> Iterator[Prefix]:
    with mock.patch("time.sleep"):  # the pauses between attempts
        yield Prefix(f"s3://bucket/{tmp_path.name}", flaky.url)


def _noise(num_bytes: int) -> bytes:
    return random.Random(0).randbytes(num_bytes)


def _uploads(prefix: Prefix) -> list:
    return s3.client(prefix.endpoint).list_multipart_uploads(Bucket="bucket").get("Uploads", [])


def test_large_objects_go_up_in_parts(prefix: Prefix, flaky: FlakyService):
    data = _noise(2 * PART_BYTES + 5)
    prefix.write("large", data)
    parts = [request for request in flaky.requests if "partNumber=" in request]
    assert len(parts) == 3
    assert prefix.read("large") == data
    flaky.requests.clear()
    prefix.write("small", data[:MIB])
    assert len(flaky.requests) == 1


def test_an_upload_that_fails_leaves_nothing(prefix: Prefix, flaky: FlakyService):
    flaky.refuse_parts = True
    with pytest.raises(StorageError, match=r"large: S3 refused the request \(InternalError\)"):
        prefix.write("large", _noise(2 * PART_BYTES))
    assert _uploads(prefix) == []
    assert list(prefix.objects("")) == []


def test_an_upload_that_fails_keeps_what_was_there(prefix: Prefix, flaky: FlakyService):
    prefix.write("large", b"old")
    flaky.refuse_parts = True
    with pytest.raises(StorageError):
        prefix.write("large", _noise(2 * PART_BYTES))
    assert prefix.read("large") == b"old"


def test_a_busy_service_is_asked_again(prefix: Prefix, flaky: FlakyService):
    flaky.busy = 2
    prefix.write("x", b"1")
    flaky.busy = 2
    assert prefix.read("x") == b"1"
    flaky.busy = 2
    assert prefix.create("x", b"2") is False
    flaky.busy = 2
    assert [found.path for found in prefix.objects("")] == ["x"]


def test_a_service_that_stays_busy_is_named(prefix: Prefix, flaky: FlakyService):
    flaky.busy = 1000
    with pytest.raises(StorageError, match="SlowDown") as caught:
        prefix.read("x")
    assert caught.value.where == prefix.uri("x")
    assert "busy" in str(caught.value)
    flaky.busy = 0


@pytest.mark.parametrize("num_bytes", [0, 1, 3 * MIB + 7])
def test_a_cut_line_is_taken_up_where_it_broke(prefix: Prefix, flaky: FlakyService, num_bytes: int):
    data = _noise(num_bytes)
    prefix.write("x", data)
    flaky.cut = 3 if data else 0
    assert prefix.read("x") == data
    assert flaky.cut == 0
    flaky.cut = 3 if data else 0
    with prefix.open("x") as stream:
        assert stream.read() == data


def test_a_line_that_is_cut_for_good_is_named(prefix: Prefix, flaky: FlakyService):
    prefix.write("x", _noise(100))

    def cut_all(self, amt=None):
        raise ConnectionResetError("reset")

    with (
        mock.patch("botocore.response.StreamingBody.read", cut_all),
        pytest.raises(StorageError, match="cannot be read beyond byte 0") as caught,
    ):
        prefix.read("x")
    assert caught.value.where == prefix.uri("x")


def test_an_object_replaced_while_it_is_read_is_an_error(prefix: Prefix, flaky: FlakyService):
    prefix.write("x", _noise(3 * MIB))
    with prefix.open("x") as stream:
        stream.read(10)
        prefix.write("x", _noise(3 * MIB)[::-1])
        stream.raw._drop()  # as if the line broke here
        with pytest.raises(StorageError, match="PreconditionFailed"):
            stream.read()


def test_a_parser_reads_no_more_than_it_needs(prefix: Prefix, flaky: FlakyService):
    prefix.write("a.json", b'{"first": [1, 2], "second": "' + b"x" * (8 * MIB) + b'"}')
    with prefix.open("a.json") as stream:
        assert next(ijson.items(stream, "first.item")) == 1
        assert stream.raw._place < 2 * MIB


def test_a_missing_object_is_not_an_outage(prefix: Prefix):
    for ask in (prefix.read, prefix.open, prefix.head):
        with pytest.raises(FileNotFoundError):
            ask("nothing")


def test_listings_and_deletions_go_page_by_page(prefix: Prefix, flaky: FlakyService):
    names = [f"many/{index // 23}/{index:05d}" for index in range(25)]
    for name in names:
        prefix.write(name, b"")
    flaky.requests.clear()
    with mock.patch.object(s3, "_BATCH", 10):
        assert [found.path for found in prefix.objects("many")] == names
        assert len(flaky.requests) == 3
        assert prefix.folders("many") == ["0", "1"]
        flaky.requests.clear()
        prefix.delete(names)
        assert len(flaky.requests) == 3
    assert not prefix.has_any("many")


def test_a_folder_is_not_the_start_of_a_name(prefix: Prefix):
    prefix.write("ab/x", b"")
    assert not prefix.has_any("a")
    assert list(prefix.objects("a")) == []


def test_ray_gets_the_region_too(s3_endpoint: str, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    path, filesystem = s3.path_and_filesystem("s3://bucket/x", s3_endpoint)
    assert path == "bucket/x"
    assert filesystem is not None
    assert filesystem.region == "eu-central-1"
    assert s3.path_and_filesystem("s3://bucket/x", None) == ("s3://bucket/x", None)
    assert s3.path_and_filesystem("/folder", s3_endpoint) == ("/folder", None)
