"""Image files that stayed in their source: found again, and refused if they are others now."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from coco_folder import HEIGHT, WIDTH, image_bytes
from scene_tables import FakeArtifact

from gcdis_ray.data.images.image_check import decode_rgb
from gcdis_ray.data.images.image_files import FILE_COLUMNS, ImageFile, ImageFiles
from gcdis_ray.errors import DataError
from gcdis_ray.store.meter import metering
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.schemas import IMAGES
from gcdis_ray.store.source import source_folder

FILES = [bytes([number]) * (number + 1) for number in range(40)]
READ = [ImageFile(file, 1, f"images/{number}.jpg") for number, file in enumerate(FILES)]


def rows(kept: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "image_id": number,
            "uri": f"images/{number}.jpg",
            "bytes": file if kept else None,
            "turn": 1,
            "sha256": hashlib.sha256(file).hexdigest(),
        }
        for number, file in enumerate(FILES)
    ]


def table(entries: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([IMAGES.field(name) for name in FILE_COLUMNS])
    return pa.Table.from_pylist(entries, schema)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for row, file in zip(rows(), FILES, strict=True):
        (tmp_path / row["uri"]).write_bytes(file)
    return tmp_path


def test_files_come_from_the_source_in_order(folder: Path):
    files = ImageFiles(source_folder(str(folder)))
    with metering() as meter:
        assert files.read(table(rows())) == READ
    assert meter.read_bytes == sum(map(len, FILES))
    copy = pickle.loads(pickle.dumps(files))  # noqa: S301  our own object
    assert copy.read(table(rows()[3:5])) == READ[3:5]


def test_files_in_the_table_need_no_source():
    assert ImageFiles().read(table(rows(kept=True))) == READ
    assert ImageFiles(source_folder("/nowhere")).read(table(rows(kept=True))) == READ


def test_a_table_of_both_kinds(folder: Path):
    mixed = rows()[:9] + rows(kept=True)[9:]
    assert ImageFiles(source_folder(str(folder))).read(table(mixed)) == READ


def test_pixels_are_turned_as_ingest_has_decided():
    file = image_bytes(1)
    for turn in range(1, 9):
        row = {**rows()[0], "bytes": file, "turn": turn}
        pixels = ImageFiles().read(table([row]))[0].pixels()
        assert (pixels == decode_rgb(file, turn)).all()
        assert pixels.shape == ((WIDTH, HEIGHT, 3) if turn >= 5 else (HEIGHT, WIDTH, 3))


def test_an_image_that_does_not_decode_is_named():
    for file in (image_bytes(1)[:3], b"\x89PNG\r\n\x1a\n" + b"x" * 100, b"text"):
        row = {**rows()[5], "bytes": file}
        with pytest.raises(DataError, match=r"images/5.jpg: cannot be decoded: ") as caught:
            ImageFiles().read(table([row]))[0].pixels()
        assert caught.value.where == "images/5.jpg"


def test_a_file_that_is_gone_is_named(folder: Path):
    (folder / "images/7.jpg").unlink()
    with pytest.raises(DataError, match="cannot be read") as caught:
        ImageFiles(source_folder(str(folder))).read(table(rows()))
    assert caught.value.where == f"{folder}/images/7.jpg"


def test_a_file_that_has_changed_is_named(folder: Path):
    (folder / "images/7.jpg").write_bytes(b"12345678")
    with pytest.raises(DataError, match="ingest ran on other bytes") as caught:
        ImageFiles(source_folder(str(folder))).read(table(rows()))
    assert caught.value.where == f"{folder}/images/7.jpg"


def test_no_files_and_no_source():
    with pytest.raises(DataError, match="neither holds the image files"):
        ImageFiles().read(table(rows()))


def test_a_source_that_is_gone(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone/images/0.jpg: cannot be read"):
        ImageFiles(source_folder(str(tmp_path / "gone"))).read(table(rows()))


@pytest.mark.parametrize("given", [True, False])
def test_workers_ask_the_service_that_was_meant(
    s3_endpoint: str, tmp_path: Path, monkeypatch, given: bool
):
    for row, file in zip(rows(), FILES, strict=True):
        Prefix(f"s3://bucket/{tmp_path.name}", s3_endpoint).write(row["uri"], file)
    source = {"uri": f"s3://bucket/{tmp_path.name}", "endpoint": s3_endpoint if given else None}
    if not given:
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    files = ImageFiles.of(cast(Any, FakeArtifact({"source": source})))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # of a worker
    copy = pickle.loads(pickle.dumps(files))  # noqa: S301  our own object
    assert copy.read(table(rows())) == READ


def test_all_see_the_same_pixels():
    """Who decodes an image's file by another way would miss its turn."""
    import gcdis_ray

    package = Path(gcdis_ray.__file__).parent
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "decode_rgb(" in path.read_text("utf-8")
    ]
    assert sorted(found) == ["data/images/image_check.py", "data/images/image_files.py"]
