"""Bytes are counted where they are read and written, whoever does it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest

from gcdis_ray.store.artifacts import Manifest
from gcdis_ray.store.meter import count, metering
from gcdis_ray.store.source import open_source
from gcdis_ray.store.storage import open_storage


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_storage_and_source(where: str, tmp_path: Path, request, monkeypatch):
    uri = str(tmp_path)
    if where == "bucket":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
        uri = f"s3://bucket/{tmp_path.name}"
    storage = open_storage(uri)
    with metering() as meter:
        storage.write("a", b"12345")
        assert storage.create("b", b"123")
        assert storage.read("a") == b"12345"
        source = open_source(uri)
        assert source.read("b") == b"123"
        with source.open("a") as stream:
            assert stream.read(1) == b"1"  # a buffer's worth is read
    assert meter.amounts() == {"read_bytes": 13, "written_bytes": 8}


def test_threads_that_run_in_the_context():
    with metering() as meter, ThreadPoolExecutor(8) as pool:
        for _ in range(1000):
            pool.submit(copy_context().run, count, 2, 1)
    assert meter.amounts() == {"read_bytes": 2000, "written_bytes": 1000}


def test_a_meter_inside_another_counts_alone():
    with metering() as outer:
        count(1)
        with metering() as inner:
            count(10)
        count(100)
    assert (outer.read_bytes, inner.read_bytes) == (101, 10)
    count(1000)  # nobody counts: nothing happens
    assert outer.read_bytes == 101


def test_manifests_from_before_there_was_a_count():
    manifest = Manifest("count", "k", 1, {}, {}, None, None, {}, io={"read_bytes": 7})
    text = manifest.to_json()
    assert Manifest.from_json(text, "here").size.read_bytes == 7
    old = text.replace('"io": {\n  "read_bytes": 7\n },\n', "")
    assert '"io"' not in old
    assert Manifest.from_json(old, "here").size.read_bytes == 0
