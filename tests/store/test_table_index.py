"""Small columns beside large ones are read alone, and so is a large value that has its SHA-256."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pytest
from tables import SCHEMAS

from gcdis_ray.errors import ArtifactError
from gcdis_ray.run.attempt import Attempt, GroupWriter, finished_units
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.store.artifacts import Artifact, FileRecord, Manifest, Table
from gcdis_ray.store.meter import metering
from gcdis_ray.store.schemas import CROPS, EMBEDDINGS, IMAGES, PROPOSALS
from gcdis_ray.store.storage import (
    LocalStorage,
    Storage,
    encode_table,
    open_artifact,
    open_storage,
)
from gcdis_ray.store.table_index import index_of

SIZES = [300, 5, 0]  # more and less than a group of rows


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.thorough)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return LocalStorage(str(tmp_path / "store"))
    endpoint = request.getfixturevalue("s3_endpoint")
    return open_storage(f"s3://bucket/{tmp_path.name}", endpoint)


def crops(num: int, first: int = 0) -> pa.Table:
    blobs = random.Random(first)
    rows = [
        dict(
            crop_index=first + i,
            image_id=i // 3,
            source_id=i,
            class_index=i % 5 - 1,
            window_xyxy=[0, 0, i, 9],
            bbox_xyxy=[0.5, 0, i, 9],
            jpeg=blobs.randbytes(2000 + i),
            mask_png=blobs.randbytes(100),
        )
        for i in range(num)
    ]
    return pa.Table.from_pylist(rows, CROPS)


def images(num: int) -> pa.Table:
    """Some without a file, some equal to others, one empty."""
    blobs = random.Random(1)
    contents = [blobs.randbytes(900) for _ in range(num)]
    contents[2] = contents[1]
    contents[4] = b""
    rows = [
        dict(
            image_id=i,
            uri=f"{i}.jpg",
            bytes=None if i % 7 == 5 else data,
            turn=1,
            height_px=4,
            width_px=5,
            sha256=hashlib.sha256(data).hexdigest(),
            split="labeled",
        )
        for i, data in enumerate(contents)
    ]
    return pa.Table.from_pylist(rows, IMAGES)


def stored(storage: Storage, member: str, tables: list[pa.Table]) -> Artifact:
    attempt = Attempt(storage, "crop/k", "attempt-1", SCHEMAS)
    records = [attempt.table(member, table, part) for part, table in enumerate(tables)]
    manifest = Manifest("crop", "k", 1, {}, {}, 0, None, {member: records})
    manifest = Manifest.from_json(manifest.to_json(), "here")
    return open_artifact(storage, manifest, SCHEMAS)


def without_index(table: Table) -> Table:
    """As it was written before there were any."""
    return dataclasses.replace(
        table, shards=tuple(dataclasses.replace(shard, index=None) for shard in table.shards)
    )


def test_a_small_column_does_not_cost_the_large_ones(storage: Storage):
    tables = [crops(num, 1000 * part) for part, num in enumerate(SIZES)]
    table = stored(storage, "crops", tables).table("crops")
    with metering() as meter:
        labels = table.read(["class_index", "bbox_xyxy"])
    assert meter.read_bytes == sum(shard.index.bytes for shard in table.shards if shard.index)
    assert meter.read_bytes < 0.03 * sum(shard.bytes for shard in table.shards)
    older = without_index(table)
    with metering() as meter:
        assert older.read(["class_index", "bbox_xyxy"]).equals(labels)
    assert meter.read_bytes == sum(shard.bytes for shard in table.shards)
    assert table.read().equals(pa.concat_tables(tables))
    assert table.read(["jpeg", "image_id"]).equals(older.read(["jpeg", "image_id"]))
    assert table.digest == older.digest


def test_shards_read_ahead_come_in_order_and_no_more_than_asked(tmp_path: Path):
    tables = [crops(20, 1000 * part) for part in range(9)]
    table = stored(LocalStorage(str(tmp_path)), "crops", tables).table("crops")
    with metering() as meter:
        shards = table.iter_shards(ahead=2)
        assert next(shards).equals(tables[0])
        shards.close()
    assert meter.read_bytes <= sum(shard.bytes for shard in table.shards[:3])
    for shard, expected in zip(table.iter_shards(ahead=2), tables, strict=True):
        assert shard.equals(expected)
    broken = dataclasses.replace(table.shards[5], sha256="0" * 64)
    spoiled = dataclasses.replace(table, shards=(*table.shards[:5], broken, *table.shards[6:]))
    with pytest.raises(ArtifactError, match="damaged"):
        list(spoiled.iter_shards(ahead=2))


def test_vectors_are_large_and_small_tables_have_no_index():
    rows = [dict(crop_index=i, class_index=1, embedding=[0.1 * i] * 64) for i in range(40)]
    embeddings = pa.Table.from_pylist(rows, EMBEDDINGS)
    index = index_of(embeddings, encode_table(embeddings))
    assert index is not None
    assert index.column_names == ["crop_index", "class_index"]
    assert index_of(PROPOSALS.empty_table(), encode_table(PROPOSALS.empty_table())) is None
    bare = images(8).set_column(2, IMAGES.field("bytes"), pa.nulls(8, pa.binary()))
    assert index_of(bare, encode_table(bare)) is None  # files stay in the source


def test_the_file_itself_is_what_it_was(storage: Storage):
    table = crops(40)
    record = stored(storage, "crops", [table]).table("crops").shards[0]
    assert storage.read(f"crop/k/{record.path}") == encode_table(table)


@pytest.mark.parametrize("rows", [[299, 0, 255, 256, 3], [1, 2, 4, 5], []])
def test_large_values_are_read_one_by_one(storage: Storage, rows: list[int]):
    whole = images(300)
    table = stored(storage, "images", [whole]).table("images")
    expected = [whole["bytes"][row].as_py() for row in rows]
    index = table.index(0)
    assert index is not None
    assert index.select(["uri", "turn", "sha256"]).equals(whole.select(["uri", "turn", "sha256"]))
    with metering() as meter:
        found = table.values(0, "bytes", index.take(pa.array(rows, pa.int64())))
    assert found == expected
    assert meter.read_bytes == sum(len(value or b"") for value in expected)
    assert without_index(table).index(0) is None


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found(storage: Storage, damage: str):
    table = stored(storage, "images", [images(9)]).table("images")
    record = table.shards[0]
    assert record.index is not None
    row = 8

    def spoil(path: str, at: int) -> None:
        data = storage.read(path)
        if damage == "remove":
            storage.delete(path.rpartition("/")[0])
        else:
            flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            storage.write(path, flipped if damage == "flip" else data[:at])

    def value_alone() -> bytes | None:
        index = table.index(0)
        assert index is not None
        return table.values(0, "bytes", index.slice(row, 1))[0]

    path, value = f"crop/k/{record.path}", value_alone()
    assert value
    kept = storage.read(path), storage.read(f"crop/k/{record.index.path}")
    spoil(path, kept[0].index(value) + (0 if damage == "cut" else 7))
    with pytest.raises(ArtifactError, match=r"damaged|gone"):
        value_alone()
    with pytest.raises(ArtifactError, match=r"damaged|gone"):
        table.read()
    storage.write(path, kept[0])
    storage.write(f"crop/k/{record.index.path}", kept[1])
    assert value_alone() == value
    spoil(f"crop/k/{record.index.path}", 30)
    with pytest.raises(ArtifactError, match=r"index\.parquet: file is (damaged|gone)"):
        table.read(["image_id"])


def test_a_unit_without_its_index_is_not_finished(storage: Storage):
    attempt = Attempt(storage, "crop/k", "attempt-1", SCHEMAS)
    record = GroupWriter(attempt, ("crops",), "crops").write(0, ShardOutput({"crops": crops(20)}))
    units = finished_units(storage, "crop/k")
    assert units["crops/00000"].files["crops"] == [record.files["crops"]]
    index = record.files["crops"].index
    assert index is not None
    storage.write(f"crop/k/{index.path}", b"cut")
    assert finished_units(storage, "crop/k") == {}


def test_records_say_what_is_there_and_no_more():
    plain = FileRecord("a", 1, "b", 2)
    assert plain.plain() == {"path": "a", "bytes": 1, "sha256": "b", "rows": 2}
    both = dataclasses.replace(plain, index=FileRecord("c", 3, "d", 2))
    assert FileRecord.of(both.plain()) == both
    assert Manifest("s", "k", 1, {}, {}, 0, None, {"m": [both]}).size.bytes == 4
