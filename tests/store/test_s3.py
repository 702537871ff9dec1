"""Streams, uploads and listings of a bucket, and what becomes of a service that fails."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import ijson
import pytest
from flaky_service import FlakyService, flaky_service

from gcdis_ray.errors import StorageError
from gcdis_ray.runtime.ray_session import _SETTINGS
from gcdis_ray.store import s3
from gcdis_ray.store.s3 import PART_BYTES, Prefix
from gcdis_ray.store.storage import open_storage

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


NO = (501, "NotImplemented")
WITHOUT_BATCHES = [NO, (400, "InvalidArgument"), (405, "MethodNotAllowed"), (501, ""), (500, "")]


@pytest.mark.parametrize("answer", WITHOUT_BATCHES)
def test_without_batches_objects_are_deleted_one_by_one(
    prefix: Prefix, flaky: FlakyService, answer: tuple[int, str]
):
    flaky.lacks = {"batch delete": answer}
    names = [f"many/{index}" for index in range(7)]
    for name in names:
        prefix.write(name, b"")
    flaky.requests.clear()
    prefix.delete([*names, "many/never-there"])
    assert sum(request.startswith("DELETE") for request in flaky.requests) == 8
    assert not prefix.has_any("many")


def test_a_busy_service_is_not_asked_to_delete_one_by_one(prefix: Prefix, flaky: FlakyService):
    prefix.write("x", b"")
    flaky.lacks = {"batch delete": (503, "SlowDown")}
    with pytest.raises(StorageError, match="busy"):
        prefix.delete(["x"])
    assert not any(request.startswith("DELETE") for request in flaky.requests)


def test_no_checksum_is_sent_to_a_service_of_its_own(prefix: Prefix, flaky: FlakyService):
    """A request for many deletions must have one; then they go one by one."""
    flaky.lacks = {"checksums": (400, "InvalidArgument")}
    prefix.check("probe")
    large = _noise((5 << 20) + 5)
    with mock.patch.object(s3, "PART_BYTES", 5 << 20):
        prefix.write("large", large)
    prefix.write("small", large[:9])
    assert prefix.read("large") == large
    prefix.delete(["large", "small"])
    assert list(prefix.objects("")) == []


def test_what_ray_writes_has_no_checksum_either(prefix: Prefix, flaky: FlakyService, monkeypatch):
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION", raising=False)
    for name in _SETTINGS:
        monkeypatch.setenv(name, os.environ.get(name, _SETTINGS[name]))
    flaky.lacks = {"checksums": (400, "InvalidArgument")}
    path, filesystem = s3.path_and_filesystem(f"{prefix.location}/train", flaky.url)
    assert filesystem is not None
    with filesystem.open_output_stream(f"{path}/checkpoint") as stream:
        stream.write(b"x" * MIB)
    assert prefix.read("train/checkpoint") == b"x" * MIB


@pytest.mark.parametrize("says", [412, 304, 409])
def test_a_service_that_keeps_the_promise(prefix: Prefix, flaky: FlakyService, says: int):
    flaky.says = {412: says}
    prefix.check("probe")
    assert prefix.create("x", b"1")
    assert not prefix.create("x", b"2")
    assert prefix.read("x") == b"1"
    assert not prefix.has_any("probe")


def test_a_repeated_create_that_meets_its_own_first_try_breaks_no_promise(prefix: Prefix):
    prefix.write("probe", b"")  # as if the answer had been lost
    prefix.check("probe")
    assert not prefix.has_any("probe")


@pytest.mark.parametrize("answer", [NO, (501, ""), (400, "InvalidRequest"), (405, ""), (500, "")])
def test_a_service_that_refuses_the_promise_is_named(
    prefix: Prefix, flaky: FlakyService, answer: tuple[int, str]
):
    flaky.lacks = {"conditional put": answer}
    with pytest.raises(StorageError, match="refuses to create objects on that condition") as caught:
        prefix.check("probe")
    assert "If-None-Match" in str(caught.value)
    assert "busy" not in str(caught.value)
    assert list(prefix.objects("")) == []


def test_a_service_that_breaks_the_promise_is_named(prefix: Prefix, flaky: FlakyService):
    flaky.ignores_conditions = True
    with pytest.raises(StorageError, match="writes over an object") as caught:
        prefix.check("probe")
    assert caught.value.where == prefix.location
    assert list(prefix.objects("")) == []
    flaky.ignores_conditions = False
    flaky.lacks = {"conditional put": (412, "PreconditionFailed")}
    with pytest.raises(StorageError, match="not there that it is"):
        prefix.check("probe")


@pytest.mark.parametrize(("code", "fix"), [
    ("SlowDown", "busy"), ("AccessDenied", "rights"), ("NoSuchBucket", "bucket's name"),
    ("AuthorizationHeaderMalformed", "AWS_REGION"),
])  # fmt: skip
def test_what_has_nothing_to_do_with_the_promise_is_named_for_what_it_is(
    prefix: Prefix, flaky: FlakyService, code: str, fix: str
):
    status = {"SlowDown": 503, "AccessDenied": 403, "NoSuchBucket": 404}.get(code, 400)
    flaky.lacks = {"put": (status, code)}
    with pytest.raises(StorageError, match=rf"S3 refused the request \({code}: no put\)") as caught:
        prefix.check("probe")
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "fix"), [((503, "SlowDown"), "busy"), ((403, "AccessDenied"), "rights")]
)
def test_a_probe_does_not_stay(
    prefix: Prefix, flaky: FlakyService, answer: tuple[int, str], fix: str
):
    flaky.lacks, flaky.after = {"conditional put": answer}, 1  # the second one fails
    with (
        mock.patch("botocore.endpoint.time.sleep"),
        pytest.raises(StorageError, match=answer[1]) as caught,
    ):
        prefix.check("probe")
    assert fix in str(caught.value)
    assert "If-None-Match" not in str(caught.value)
    assert list(prefix.objects("")) == []


def test_who_may_not_delete_leaves_one_probe(prefix: Prefix, flaky: FlakyService):
    flaky.lacks = {"delete": (403, "AccessDenied")}
    for _ in range(3):
        with pytest.raises(StorageError, match="AccessDenied") as caught:
            open_storage(prefix.location, flaky.url).check()
        assert "rights" in str(caught.value)
    assert len(list(prefix.objects(""))) == 1


@pytest.mark.parametrize(("code", "fix"), [("SlowDown", "busy"), ("AccessDenied", "rights")])
def test_an_object_that_is_not_deleted_has_its_reason(prefix: Prefix, code: str, fix: str):
    client = mock.Mock()
    client.delete_objects.return_value = {"Errors": [{"Key": "x", "Code": code}]}
    with (
        mock.patch.object(s3, "client", return_value=client),
        pytest.raises(StorageError, match=f"1 objects cannot be deleted .{code}.") as caught,
    ):
        prefix.delete(["x"])
    assert fix in str(caught.value)


@pytest.mark.parametrize("way", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "profile"])
def test_a_service_is_spared_whoever_names_it(
    prefix: Prefix, flaky: FlakyService, tmp_path: Path, monkeypatch, way: str
):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    if way == "profile":
        (tmp_path / "config").write_text(f"[default]\nendpoint_url = {flaky.url}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv(way, flaky.url)
    flaky.lacks = {"checksums": (400, "InvalidArgument")}
    s3.client.cache_clear()
    try:
        storage = open_storage(prefix.location)
        storage.check()
        storage.write("x", b"1")
        assert storage.read("x") == b"1"
    finally:
        s3.client.cache_clear()
    assert flaky.requests


@pytest.mark.parametrize("answer", [NO, (501, ""), (405, "MethodNotAllowed")])
def test_what_a_service_cannot_do_is_not_an_outage(
    prefix: Prefix, flaky: FlakyService, answer: tuple[int, str]
):
    flaky.lacks = {"list": answer, "put": answer}
    with pytest.raises(StorageError, match="cannot do what S3 calls ListObjectsV2") as caught:
        list(prefix.objects(""))
    assert "again later" not in str(caught.value)
    with pytest.raises(StorageError, match="cannot do what S3 calls PutObject"):
        prefix.write("x", b"")
    assert len(flaky.requests) == 2  # nothing is asked again
