"""True objects of unlabeled images that no proposal shows: what no clustering can find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.metrics.average_recall import BEST, SHAPE
from gcdis_ray.metrics.detection_matching import AREAS
from gcdis_ray.metrics.row_overlaps import OBJECT_COLUMNS, overlap
from gcdis_ray.report.html import fill
from gcdis_ray.report.marks import ACCENT
from gcdis_ray.report.pictures import Drawn, Picture, describe, draw_image, rows_of_image
from gcdis_ray.report.run_pictures import open_images
from gcdis_ray.report.section import DISCOVERY, Section
from gcdis_ray.report.view import RunView
from gcdis_ray.store.schemas import WHOLE_IMAGE

_BESIDE = 2  # rank after the sections on discovery
_LOOKED_AT, _SHOWN = 24, 4  # images
_MAX_ROWS = 60  # classes of the table
_FOUND = "#9aa3ad"


def missed_section(view: RunView) -> Section:
    """Share of missed objects by class and size, and some of them in their images; empty without
    truth, and where images are objects, of which none can be missed.

    Args:
        view: as an evaluation sees it, which may look at the truth.
    """

    def body() -> Markup:
        rows = _by_class(view)
        missed = sum(row["missed"] for row in rows)
        if not rows or _are_images(view):
            return Markup("")
        looked, pictures = _pictures(view) if missed else (0, [])
        return fill(
            "missed",
            missed=missed,
            objects=sum(row["objects"] for row in rows),
            rows=rows[:_MAX_ROWS],
            left_out=len(rows) - min(len(rows), _MAX_ROWS),
            sizes=_by_size(view),
            iou=_least_iou(view),
            best=BEST[-1],
            pictures=pictures,
            looked=looked,
        )

    return Section(
        "missed", "Missed", body, DISCOVERY + _BESIDE, heading="Objects that nothing was found of"
    )


def _are_images(view: RunView) -> bool:
    proposals = view.table("proposals")
    shards = proposals.iter_shards(["origin"]) if proposals else ()
    origins = (shard["origin"][0].as_py() for shard in shards if shard.num_rows)
    return next(origins, None) == WHOLE_IMAGE


def _least_iou(view: RunView) -> float:
    """Of a proposal with the object that it shows, as the evaluation has it."""
    made = view.of("class_objects")
    return float((made.manifest.config if made else {}).get("match_iou", 0.5))


def _by_class(view: RunView) -> list[dict[str, Any]]:
    """Classes of true objects in unlabeled images, those with the most missed objects first."""
    table = view.table("class_objects")
    if table is None or not table.num_rows:
        return []
    names = view.category_names()
    known = {row["category_id"] for row in view.truth_categories() or [] if row["known"]}
    rows = table.read().filter(pc.field("split") == "unlabeled")
    sums = rows.group_by("category_id").aggregate([("objects", "sum"), ("with_proposal", "sum")])
    found = [
        {
            "name": names.get(row["category_id"], f"category {row['category_id']}"),
            "known": row["category_id"] in known,
            "objects": row["objects_sum"],
            "missed": row["objects_sum"] - row["with_proposal_sum"],
        }
        for row in sums.to_pylist()
        if row["objects_sum"]
    ]
    return sorted(found, key=lambda r: (-r["missed"], -r["objects"], r["name"]))


def _by_size(view: RunView) -> list[dict[str, Any]]:
    """Small, medium and large objects, and how many of them the best proposals of their image do
    not meet one to one at IoU .50; by masks where all objects have one, else by boxes."""
    table = view.table("proposal_recall")
    if table is None:
        return []
    rows = table.read().filter(pc.field("group") == "all")
    kinds = set(rows["kind"].to_pylist())
    if not kinds:
        return []
    rows = rows.filter(pc.field("kind") == ("mask" if "mask" in kinds else "box"))
    objects_A = matrix(rows["objects"]).sum(axis=0, dtype=np.int64)
    met_A = matrix(rows["met"]).reshape(len(rows), *SHAPE).sum(axis=0, dtype=np.int64)[-1, :, 0]
    return [
        {"name": name, "objects": int(objects), "missed": int(objects - met)}
        for name, objects, met in zip(AREAS, objects_A, met_A, strict=True)
        if name != "all" and objects
    ]


def _pictures(view: RunView) -> tuple[int, list[Picture]]:
    """How many images were looked at, and some of those with missed objects, evenly spread."""
    images, proposals = view.table("images"), view.table("proposals")
    truth = view.table("truth_instances")
    if images is None or proposals is None or truth is None:
        return 0, []
    names, least, looked = view.category_names(), _least_iou(view), 0
    with_missed = []
    for image in open_images(view, images, ("unlabeled",), _LOOKED_AT):
        looked += 1
        found = rows_of_image(proposals.shard(image.shard), image.image_id).to_pylist()
        columns = [*OBJECT_COLUMNS, "category_id", "iscrowd"]
        objects = [
            row
            for row in rows_of_image(truth.shard(image.shard, columns), image.image_id).to_pylist()
            if not row["iscrowd"]
        ]
        if missed := list(_missed(found, objects, least)):
            with_missed.append((image, found, missed))
    spread = np.linspace(0, len(with_missed) - 1, min(_SHOWN, len(with_missed))).round()
    pictures = []
    for image, found, missed in (with_missed[int(n)] for n in spread):
        shown = [_drawn(row, _FOUND, "") for row in found]
        lost = [
            _drawn(row, ACCENT, names.get(row["category_id"], f"category {row['category_id']}"))
            for row in missed
        ]
        uri = draw_image(image.pixels_HW3, [*shown, *lost])
        alt = f"image {image.image_id}, {describe(lost, 'missed objects')}"
        pictures.append(Picture(image.image_id, uri, alt, None, ""))
    return looked, pictures


def _missed(
    found: Sequence[Mapping[str, Any]], objects: Sequence[Mapping[str, Any]], least: float
) -> Iterator[Mapping[str, Any]]:
    """Objects that no proposal of their image overlaps enough."""
    if not found or not objects:
        yield from objects
        return
    best_G = overlap(found, objects).max(axis=0)
    yield from (row for row, iou in zip(objects, best_G, strict=True) if iou < least)


def _drawn(row: Mapping[str, Any], color: str, text: str) -> Drawn:
    return Drawn(row["mask_rle"], tuple(row["bbox_xyxy"]), color, text)
