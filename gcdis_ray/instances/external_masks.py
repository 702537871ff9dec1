"""Proposals that the user brings: a COCO results file instead of a proposer of our own.

Entries pass by as a stream and are sorted by shard of their images, as text; workers check them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.data.sets.sorted_runs import SortedRuns, Spool
from gcdis_ray.errors import DataError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.lookup import is_in
from gcdis_ray.records.fields import number, whole
from gcdis_ray.records.reasons import Reason, Refused
from gcdis_ray.records.results import results_section
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import PROPOSALS, QUARANTINE, schema
from gcdis_ray.store.source import SourceFolder

WHERE = "stages.propose.external.results"
EXTERNAL_MASKS = schema(  # the user's masks on their way to their images; laid aside
    shard=pa.int64(),  # of the images
    position=pa.int64(),  # in the file
    image_id=pa.int64(),  # -1: none, and it is refused
    entry=pa.string(),  # score, segmentation and box, as JSON; why its image id is none
)
_FIX = "write a list of {image_id, segmentation (RLE or polygons), score}, as COCO results are"
_FIELDS = ("score", "segmentation", "bbox")
_BATCH_BYTES = 4 << 20
_IDS_PER_SHARD = 1 << 32


def proposal_id(shard: int, place: int) -> int:
    """Unique over all shards, and the same however many workers there are."""
    return shard * _IDS_PER_SHARD + place


def read_results(
    folder: SourceFolder,
    name: str,
    images: Table,
    spool: Spool,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Table, int]:
    """Entries of a results file by shard of the unlabeled images.

    Args:
        spool: lays rows aside.
        told: how many entries were read, and how many there are.

    Returns:
        ``external_masks`` in the shards of ``images``, and how many entries belong to no unlabeled
        image.

    Raises:
        DataError: no such file, not a list of objects, or none fits.
    """
    file = JsonFile(folder, name, _FIX)
    section = results_section(file)
    image_id_N, shard_N = _unlabeled(images)
    runs = SortedRuns(spool, "external_masks", EXTERNAL_MASKS, ("position",))
    total = strangers = 0
    for ids, entries in _batches(file, section):
        here = np.flatnonzero(is_in(ids, image_id_N) | (ids < 0))
        place = np.searchsorted(image_id_N, ids[here])
        columns = {
            "shard": np.where(ids[here] < 0, 0, shard_N[np.minimum(place, len(shard_N) - 1)]),
            "position": total + here,
            "image_id": ids[here],
            "entry": [entries[row] for row in here.tolist()],
        }
        runs.add(pa.table(columns, schema=EXTERNAL_MASKS))
        total, strangers = total + len(ids), strangers + len(ids) - len(here)
        told(total, file.lists[section])
    if strangers == total:
        raise DataError(
            f"none of its {total} entries belongs to an unlabeled image",
            where=file.path,
            fix="use the image ids of the unlabeled annotation file",
        )
    runs.flush()
    by_shard = spool("external_masks", EXTERNAL_MASKS)
    for part in runs.parts(range(1, images.num_shards + 1)):
        by_shard.add(EXTERNAL_MASKS.empty_table() if part is None else part)
    return by_shard.close(), strangers


def _unlabeled(images: Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rising ids of the unlabeled images, and the shard of each."""
    found = [np.zeros(0, np.int64)]
    for table in images.iter_shards(("image_id", "split")):
        mine = np.array([split == "unlabeled" for split in table["split"].to_pylist()], np.bool_)
        found.append(table["image_id"].to_numpy()[mine])
    image_id_N = np.concatenate(found)
    shard_N = np.repeat(np.arange(images.num_shards), [len(ids) for ids in found[1:]])
    order = np.argsort(image_id_N)
    return image_id_N[order], shard_N[order]


def _batches(file: JsonFile, section: str) -> Iterator[tuple[NDArray[np.int64], list[str]]]:
    """Image ids (N,) of entries, -1 for none, and as much of their text as memory should hold."""
    ids, entries, size = [], [], 0
    for raw in file.records(section):
        try:
            ids.append(whole(raw, "image_id"))
            entries.append(json.dumps({name: raw[name] for name in _FIELDS if name in raw}))
        except Refused as refused:
            ids.append(-1)
            entries.append(json.dumps(refused.what))
        size += len(entries[-1])
        if size > _BATCH_BYTES:
            yield np.array(ids, np.int64), entries
            ids, entries, size = [], [], 0
    if ids:
        yield np.array(ids, np.int64), entries


@dataclass(frozen=True)
class ImportMasks:
    """Shard task over ``[images, external_masks]``: checked entries become ``proposals``,
    the best of each image; entries that cannot be used go to ``quarantine`` with the reason."""

    min_score: float
    max_per_image: int

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        return self._run

    def _run(self, index: int, images: pa.Table, masks: pa.Table) -> Mapping[str, pa.Table]:
        sizes = images.select(["image_id", "height_px", "width_px"]).to_pylist()
        size_of = {s["image_id"]: (s["height_px"], s["width_px"]) for s in sizes}
        found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in size_of}
        refused = []
        for position, image_id, entry in zip(
            *(masks[name].to_pylist() for name in ("position", "image_id", "entry")), strict=True
        ):
            uri, reason = f"image {image_id}", None
            if image_id < 0:
                uri, reason = f"entry {position}", json.loads(entry)
            else:
                try:
                    row = _proposal(image_id, json.loads(entry), size_of[image_id])
                except Refused as error:
                    reason = error.what
            if reason is not None:
                refused.append({"split": "unlabeled", "uri": uri, "reason": reason})
                continue
            if row["objectness"] >= self.min_score:
                found[image_id].append(row)
        kept = []
        for rows in found.values():
            rows.sort(key=lambda row: -row["objectness"])  # file order among equals
            kept += rows[: self.max_per_image]
        for place, row in enumerate(kept):
            row["proposal_id"] = proposal_id(index, place)
        return {
            "proposals": pa.Table.from_pylist(kept, schema=PROPOSALS),
            "quarantine": pa.Table.from_pylist(refused, schema=QUARANTINE),
        }


def check_refused(refused: Table, total: int, limit: float) -> None:
    """Raise a DataError if more than the share ``limit`` of ``total`` masks is unusable."""
    if refused.num_rows > limit * total:
        first = refused.read(("uri", "reason")).slice(0, 3).to_pylist()
        examples = "; ".join(f"{row['uri']}: {row['reason']}" for row in first)
        raise DataError(
            f"{refused.num_rows} of {total} masks cannot be used ({examples})",
            where=WHERE,
            fix="repair the file, or raise stages.propose.external.max_rejected",
        )


def _proposal(image_id: int, entry: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """A checked entry as a row of ``proposals``.

    Args:
        size: (height, width) of its image in pixels.

    Raises:
        Refused: see :mod:`gcdis_ray.records.annotations`; no mask, or one that leaves the image or
            covers nothing; a score outside [0, 1].
    """
    from gcdis_ray.masks import coco_rle
    from gcdis_ray.records.annotations import shape_of
    from gcdis_ray.records.segmentations import as_rle

    shape = shape_of(entry, size)
    score = number(entry["score"], "score") if entry.get("score") is not None else 1.0
    if shape.mask is None:
        raise shape.mask_fault or Refused("a box only, and masks are needed", reason=Reason.NO_MASK)
    rle = as_rle(shape.mask)
    area = coco_rle.area(rle, *size)
    if area == 0:
        raise Refused("zero-area mask", reason=Reason.MASK_EMPTY)
    if not 0 <= score <= 1:
        raise Refused(f"score {score:g} is not in [0, 1]", reason=Reason.SCORE_RANGE)
    return {
        "image_id": image_id,
        "bbox_xyxy": list(coco_rle.bbox_xyxy(rle, *size)),
        "mask_rle": rle,
        "height_px": size[0],
        "width_px": size[1],
        "area_px": area,
        "objectness": score,
        "origin": "external",
    }
