"""Records of a results file as batches of columns, with no more than a few of them in memory.

Files as ``json.dump`` writes them are parsed by Arrow, which makes no Python object of any record.
Whatever it stumbles over, right or wrong, is read again record by record: slower, and with a name
for every mistake.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json as arrow_json

from gcdis_ray.files.encoding import MARK
from gcdis_ray.files.json_file import stream
from gcdis_ray.metrics.files.coco_files import GroundTruthFile
from gcdis_ray.metrics.files.mask_faults import MaskFaults
from gcdis_ray.metrics.overlaps import as_rle
from gcdis_ray.records.annotations import detection_of, image_id_of
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.records.results import results_section
from gcdis_ray.training.plan import Progress, Show

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
_MAX_HELD_BYTES = 16 << 20  # of a file in which no brace comes; longer ones are for the other way
_BATCH = 4096
_MB = 10**6
_START = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(?=[{\]])")  # after a byte order mark
_NO_COMMA = re.compile(rb"\}\s*[^\s,}\]]")
_FIX = "results need image_id, category_id, score, and segmentation or bbox"
_FIX_FILE = "give a COCO results file: a list of detections"


def fast_batches(path: Path, show: Show = lambda progress: None) -> Iterator[pa.RecordBatch]:
    """Records of a JSON list of plain objects, unchecked.

    Args:
        show: how much of the file is read.

    Raises:
        pa.ArrowInvalid: it is anything else, or written in another way.
    """
    with Path(path).open("rb") as file:
        size = Path(path).stat().st_size
        lines = _Lines(file, size)
        for batch in arrow_json.open_json(
            pa.PythonFile(lines, "r"),
            read_options=arrow_json.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=arrow_json.ParseOptions(
                explicit_schema=SCHEMA, unexpected_field_behavior="ignore"
            ),
        ):
            yield batch
            show(Progress((size - lines.left) // _MB, size // _MB, "MB"))


class _Lines(io.RawIOBase):
    """A JSON list with each object on a line of its own, and without its brackets.

    Commas are looked for between braces, blindly. Inside of an object that can only spoil nested
    objects, which are then no JSON any more, or texts, which are then no run lengths. Arrow takes
    objects without a comma between them, and does not survive a record that is null: neither gets
    through to it.
    """

    def __init__(self, file: io.BufferedReader, size: int) -> None:
        self._file, self.left, self._begun = file, size, False
        self._held = self._ready = b""  # not looked at yet; lines that nobody has asked for yet

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """As many bytes as asked for, to the end: Arrow takes what comes for a block, and a record
        may not lie in three of them."""
        while (size < 0 or len(self._ready) < size) and (self.left > 0 or self._held):
            self._ready += self._next(size)
        size = len(self._ready) if size < 0 else size
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _next(self, size: int) -> bytes:
        data = self._file.read(size)
        self.left = self.left - len(data) if data else 0  # it may have been cut meanwhile
        data, self._held = self._held + data, b""
        if len(data) > _MAX_HELD_BYTES:
            raise pa.ArrowInvalid("a record of absurd length")
        if not self._begun:
            blank = MARK + b"[ \t\r\n"
            if self.left > 0 and not data.strip(blank):  # its first object is to come
                self._held = data
                return b""
            if (start := _START.match(data)) is None:
                raise pa.ArrowInvalid("not a list of objects")
            self._begun, data = True, data[start.end() :]
        if self.left > 0:  # what follows the last brace may be cut
            end = data.rfind(b"}")
            data, self._held = (b"", data) if end < 0 else (data[:end], data[end:])
        else:
            data = data.rstrip()
            if not data.endswith(b"]"):
                raise pa.ArrowInvalid("no end of the list")
        if _NO_COMMA.search(data):
            raise pa.ArrowInvalid("no comma between records")
        data = data.replace(b"}, {", b"}\n{").replace(b"},{", b"}\n{")
        return data if self.left > 0 else data[:-1]


def checked_batches(
    path: Path,
    ground_truth: GroundTruthFile,
    any_category: bool = False,
    faults: MaskFaults | None = None,
    show: Show = lambda progress: None,
) -> Iterator[pa.RecordBatch]:
    """Records of any results file, each looked at; masks as compressed run lengths.

    Args:
        any_category: category ids need not be the ground truth's.
        faults: is told masks that say nothing; such a detection has its box.
        show: how many have been read.

    Raises:
        DataError: naming the first record that is wrong.
    """
    known = None if any_category else {c.category_id for c in ground_truth.categories}
    file = stream(path, _FIX_FILE)
    section = results_section(file)
    found = (
        _checked(row, ground_truth, known, file.place(section, n), faults)
        for n, row in enumerate(file.records(section))
    )
    done = 0
    while batch := list(islice(found, _BATCH)):
        yield pa.RecordBatch.from_pylist(batch, SCHEMA)
        done += len(batch)
        show(Progress(done, file.lists[section], "detections"))


def _checked(
    row: Mapping[str, Any],
    ground_truth: GroundTruthFile,
    category_ids: set[int] | None,
    where: str,
    faults: MaskFaults | None,
) -> dict[str, Any]:
    try:
        image_id = image_id_of(row, ground_truth.images)
        found = detection_of(row, ground_truth.images[image_id], category_ids)
    except Refused as refused:
        missing = refused.reason == Reason.MISSING
        raise refused.at(where, _FIX if missing else None) from None
    shape = found.shape
    if shape.mask_fault is not None and faults is not None:
        faults.add(shape.mask_fault, where)
    rle = None if shape.mask is None else as_rle(shape.mask.value, list(shape.mask.size))
    return {"image_id": image_id, "category_id": found.category_id, "score": found.score,
            "bbox": shape.box, "segmentation": rle}  # fmt: skip
