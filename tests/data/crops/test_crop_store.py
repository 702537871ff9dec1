from __future__ import annotations

import hashlib
import itertools

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch

from gcdis_ray.data.crops.crop_store import CropStore, decode_crops
from gcdis_ray.errors import DataError
from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.store.schemas import CROPS


def encoded(height: int, width: int, seed: int) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 255, 3), np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 255
    return cv2.imencode(".png", image)[1].tobytes(), cv2.imencode(".png", mask)[1].tobytes()


def table() -> pa.Table:
    pairs = [encoded(20 + i, 30, i) for i in range(5)]
    return pa.table({"jpeg": [p[0] for p in pairs], "mask_png": [p[1] for p in pairs]})


class Shards:
    """An opener of crops in memory that counts what is read."""

    def __init__(self, sizes: list[int]) -> None:
        self.reads: list[int] = []
        bounds = np.cumsum([0, *sizes])
        self.tables = [self._rows(a, b) for a, b in itertools.pairwise(bounds)]

    def _rows(self, first: int, stop: int) -> pa.Table:
        pairs = [encoded(18 + i, 30, i) for i in range(first, stop)]
        columns = {
            "class_index": pa.array([i % 3 - 1 for i in range(first, stop)], pa.int32()),
            "jpeg": pa.array([p[0] for p in pairs], pa.binary()),
            "mask_png": pa.array([p[1] for p in pairs], pa.binary()),
        }
        return pa.table(columns, schema=pa.schema([CROPS.field(n) for n in columns]))

    def read_table(self, record: FileRecord, columns) -> pa.Table:
        self.reads.append(int(record.path))
        return self.tables[int(record.path)].select(list(columns))

    def read_bytes(self, record: FileRecord) -> bytes:
        raise NotImplementedError

    def handle(self) -> Table:
        hashes = [hashlib.sha256(repr(table.to_pylist()).encode()) for table in self.tables]
        records = [
            FileRecord(str(i), 0, digest.hexdigest(), table.num_rows)
            for i, (digest, table) in enumerate(zip(hashes, self.tables, strict=True))
        ]
        return Table("crops", tuple(records), self)


SIZES = [4, 0, 3, 5]


def test_kept_and_decoded_on_demand_are_the_same():
    rows = torch.tensor([4, 0, 0, 2])
    kept, lazy = CropStore(table(), 16, budget_mb=10), CropStore(table(), 16, budget_mb=0)
    for a, b in zip(kept.get(rows), lazy.get(rows), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.uint8


@pytest.mark.parametrize("budget_mb", [0, 10])
def test_a_handle_is_read_once_shard_by_shard_and_gives_what_the_whole_table_gives(budget_mb):
    shards = Shards(SIZES)
    store = CropStore(shards.handle(), 16, budget_mb)
    assert shards.reads == [0, 1, 2, 3]
    whole = pa.concat_tables(shards.tables)
    assert store.labels.tolist() == whole["class_index"].to_pylist()
    assert store.labels.dtype == torch.int64
    rows = torch.tensor([11, 3, 4, 4, 0, 7])
    images, masks = decode_crops(
        [whole["jpeg"][i].as_py() for i in rows.tolist()],
        [whole["mask_png"][i].as_py() for i in rows.tolist()],
        16,
    )
    found_images, found_masks = store.get(rows)
    assert torch.equal(found_images, images)
    assert torch.equal(found_masks, masks)
    assert shards.reads == [0, 1, 2, 3]


def test_sliced_and_chunked_columns_keep_their_rows():
    shards = Shards([6, 6])
    first = shards.tables[0]
    shards.tables[0] = pa.concat_tables([first.slice(1, 2), first.slice(4, 1), first.slice(0, 0)])
    store = CropStore(shards.handle(), 16, budget_mb=0)
    whole = CropStore(pa.concat_tables(shards.tables), 16, budget_mb=10)
    rows = torch.arange(9)
    for a, b in zip(store.get(rows), whole.get(rows), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("budget_mb", [0, 10])
def test_a_second_store_of_the_same_crops_reads_none(budget_mb):
    first, second = Shards([3, 2]), Shards([3, 2])
    stores = [CropStore(shards.handle(), 16, budget_mb) for shards in (first, second)]
    assert (first.reads, second.reads) == ([0, 1], [])
    rows = torch.tensor([4, 0])
    for a, b in zip(*(store.get(rows) for store in stores), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(*(store.labels for store in stores))
    other = Shards([2, 3])
    CropStore(other.handle(), 16, budget_mb)
    assert other.reads == [0, 1]


def test_colours_are_rgb_and_masks_stay_two_valued():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = 200  # OpenCV's order: red
    png = cv2.imencode(".png", image)[1].tobytes()
    images, masks = decode_crops([png], [encoded(9, 7, 0)[1]], 12)
    assert images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert masks.unique().tolist() == [0, 255]
    assert images.shape == (1, 3, 12, 12)


def test_broken_bytes_are_named():
    with pytest.raises(DataError, match="no JPEG"):
        decode_crops([b"nothing"], [encoded(4, 4, 0)[1]], 8)


def test_no_crops():
    for crops in (table().slice(0, 0), Shards([0, 0]).handle()):
        images, masks = CropStore(crops, 16, budget_mb=0).get(torch.arange(0))
        assert images.shape == (0, 3, 16, 16) and masks.shape == (0, 1, 16, 16)  # noqa: PT018
