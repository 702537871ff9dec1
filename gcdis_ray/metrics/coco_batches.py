"""Records of a results file as batches of columns, with no more than a few of them in memory.

Files as ``json.dump`` writes them are parsed by Arrow, which makes no Python object of any record.
Whatever it stumbles over, right or wrong, is read again record by record: slower, and with a name
for every mistake.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from gcdis_ray.errors import DataError
from gcdis_ray.json_file import stream
from gcdis_ray.metrics.coco_files import GroundTruthFile
from gcdis_ray.metrics.coco_records import number, shape
from gcdis_ray.metrics.overlaps import as_rle

SCHEMA = pa.schema(
    {
        "image_id": pa.int64(),
        "category_id": pa.int64(),
        "score": pa.float64(),
        "bbox": pa.list_(pa.float64()),
        "segmentation": pa.struct({"size": pa.list_(pa.int64()), "counts": pa.string()}),
    }
)
_BLOCK_BYTES = 1 << 20
_BATCH = 4096
_FIX = "results need image_id, category_id, score, and segmentation or bbox"
_FIX_FILE = "give a COCO results file: a list of detections"


def fast_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Records of a JSON list of plain objects, unchecked.

    Raises:
        pa.ArrowInvalid: it is anything else, or written in another way.
    """
    with Path(path).open("rb") as file:
        lines = _Lines(file, Path(path).stat().st_size)
        yield from arrow_json.open_json(
            pa.PythonFile(lines, "r"),
            read_options=arrow_json.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=SCHEMA, unexpected_field_behavior="ignore"
            ),
        )


class _Lines(io.RawIOBase):
    """A JSON list with each object on a line of its own, and without its brackets.

    Commas are looked for between braces, blindly. Inside of an object that can only spoil nested
    objects, which are then no JSON any more, or texts, which are then no run lengths.
    """

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file, self._left, self._rest, self._begun = file, size, b"", False

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = b""
        while not data and (self._left > 0 or self._rest):
            data = self._next(size if size < 0 else max(size - 3, 1))
        return data

    def _next(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        data = self._rest + data
        if not self._begun and (data := data.lstrip()):
            self._begun = True
            if not data.startswith(b"["):
                raise pa.ArrowInvalid("not a list")
            data = data[1:]
        data = data.replace(b"}, {", b"}\n{").replace(b"},{", b"}\n{")
        if self._left > 0:
            data, self._rest = data[:-3], data[-3:]  # a comma may be cut from its braces
            return data
        data, self._rest = data.rstrip(), b""
        if not data.endswith(b"]"):
            raise pa.ArrowInvalid("no end of the list")
        return data[:-1]


def checked_batches(
    path: Path, ground_truth: GroundTruthFile, any_category: bool = False
) -> Iterator[pa.RecordBatch]:
    """Records of any results file, each looked at; masks as compressed run lengths.

    Args:
        any_category: category ids need not be the ground truth's.

    Raises:
        DataError: naming the first record that is wrong.
    """
    known = None if any_category else {c.category_id for c in ground_truth.categories}
    file = stream(path, _FIX_FILE)
    top = "annotations" if "annotations" in file.lists else ""
    found = (
        _checked(row, ground_truth, known, file.place(top, n))
        for n, row in enumerate(file.records(top))
    )
    while batch := list(islice(found, _BATCH)):
        yield pa.RecordBatch.from_pylist(batch, SCHEMA)


def _checked(
    row: Mapping[str, Any], ground_truth: GroundTruthFile, category_ids: set[int] | None, where: str
) -> dict[str, Any]:
    bbox, mask, size = shape(row, ground_truth.images, category_ids, where)
    if "score" not in row:
        raise DataError("no 'score'", where=where, fix=_FIX)
    score = number(row["score"], "score", where)
    rle = None if mask is None else as_rle(mask, list(size))
    return {"image_id": row["image_id"], "category_id": row["category_id"], "score": score,
            "bbox": bbox, "segmentation": rle}  # fmt: skip
