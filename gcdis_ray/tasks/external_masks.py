"""Proposals that the user brings: a COCO results file instead of a proposer of our own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ijson
import pyarrow as pa

from gcdis_ray.artifacts import SCHEMAS, Table
from gcdis_ray.errors import ConfigError, DataError

WHERE = "stages.propose.external.results"
_FIX = "write a list of {image_id, segmentation (RLE or polygons), score}, as COCO results are"
_IDS_PER_SHARD = 1 << 32


def proposal_id(shard: int, place: int) -> int:
    """Unique over all shards, and the same however many workers there are."""
    return shard * _IDS_PER_SHARD + place


def open_results(path: str) -> bytes:
    """The file's bytes, or a ConfigError that names it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", where=WHERE, fix=_FIX) from error


def read_results(path: str, images: Table) -> tuple[list[dict[str, Any]], int]:
    """Entries of a results file by shard of the unlabeled images.

    Returns:
        per shard ``{"entries": [...]}``, and how many entries belong to no unlabeled image.

    Raises:
        ConfigError: no such file. DataError: not a list of objects, or none fits.
    """
    shard_of: dict[int, int] = {}
    for shard in range(images.num_shards):
        table = images.shard(shard, ("image_id", "split"))
        for image_id, split in zip(*(c.to_pylist() for c in table.columns), strict=True):
            if split == "unlabeled":
                shard_of[image_id] = shard
    by_shard: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    strangers = 0
    for entry in _entries(path):
        image_id = entry.get("image_id")
        if isinstance(image_id, int) and image_id in shard_of:
            by_shard[shard_of[image_id]].append(entry)
        else:
            strangers += 1
    if not by_shard:
        raise DataError(
            f"no entry of {path} belongs to an unlabeled image ({strangers} do not)",
            where=WHERE,
            fix="use the image ids of the unlabeled annotation file",
        )
    return [{"entries": by_shard[shard]} for shard in range(images.num_shards)], strangers


def _entries(path: str) -> Iterator[Mapping[str, Any]]:
    try:
        for entry in ijson.items(open_results(path), "item", use_float=True):
            if not isinstance(entry, Mapping):
                raise DataError(f"{path}: an entry is no object", where=WHERE, fix=_FIX)
            yield entry
    except ijson.JSONError as error:
        first = (str(error).strip() or "empty").splitlines()[0].removeprefix("b'")
        raise DataError(f"{path} is not JSON ({first[:120]})", where=WHERE, fix=_FIX) from None


@dataclass(frozen=True)
class ImportMasks:
    """Shard task over ``[images]``: checked entries become ``proposals``, the best of each image;
    entries that cannot be used go to ``quarantine`` with the reason."""

    min_score: float
    max_per_image: int

    def open(self) -> Callable[..., Mapping[str, pa.Table]]:
        return self._run

    def _run(
        self, index: int, images: pa.Table, *, entries: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, pa.Table]:
        sizes = images.select(["image_id", "height_px", "width_px"]).to_pylist()
        size_of = {s["image_id"]: (s["height_px"], s["width_px"]) for s in sizes}
        found: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in size_of}
        refused = []
        for entry in entries:
            image_id = entry["image_id"]
            try:
                row = _proposal(entry, *size_of[image_id])
            except DataError as error:
                refused.append(
                    {"split": "unlabeled", "uri": f"image {image_id}", "reason": error.what}
                )
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
            "proposals": pa.Table.from_pylist(kept, schema=SCHEMAS["proposals"]),
            "quarantine": pa.Table.from_pylist(refused, schema=SCHEMAS["quarantine"]),
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


def _proposal(entry: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    from gcdis_ray.data import masks

    score = entry.get("score", 1.0)
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if not is_number or not 0 <= score <= 1:  # NaN is in no interval
        raise DataError(f"score {score!r} is not in [0, 1]")
    rle = masks.rle_from_segmentation(entry.get("segmentation"), height, width)
    area = masks.area(rle, height, width)
    if area == 0:
        raise DataError("empty mask")
    return {
        "image_id": entry["image_id"],
        "bbox_xyxy": list(masks.bbox_xyxy(rle, height, width)),
        "mask_rle": rle,
        "height_px": height,
        "width_px": width,
        "area_px": area,
        "objectness": float(score),
        "origin": "external",
    }
