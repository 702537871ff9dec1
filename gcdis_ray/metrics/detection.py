"""Mask and box average precision of detections, by COCO's rules or LVIS's, for files and tables.

The numbers equal those of pycocotools' ``COCOeval`` and lvis-api's ``LVISEval`` with their default
parameters (tests hold them to it). Masks are rasterised and compared by pycocotools' C code; the
bookkeeping is :mod:`gcdis_ray.metrics.average_precision`.

What the rules leave open is settled so: a mask's area counts for mask AP and a box's for box AP,
also when results carry both; results with masks only are given their tight boxes (and, as in
pycocotools, keep the mask's area); an undefined mean is ``None`` where the originals say -1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pycocotools import mask as coco_mask

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.average_precision import (
    AREAS,
    ClassRecord,
    Curves,
    curves,
    match_pair,
    outside_areas,
)
from gcdis_ray.metrics.coco_files import (
    Category,
    GroundTruthFile,
    Object,
    class_ids,
    read_ground_truth,
    read_results,
)

Kind = Literal["mask", "box"]
COCO_MAX_DETS: tuple[int, ...] = (1, 10, 100)  # per image and class
LVIS_MAX_DETS = 300  # per image, over all classes
PROTOCOLS = {
    "coco": "COCO: IoU .50:.05:.95, 101 recall points, 100 detections per image and class",
    "lvis": "LVIS federated: IoU .50:.05:.95, 101 recall points, 300 detections per image; "
    "detections of classes not verified for the image are ignored",
}


def evaluate_files(
    ground_truth: Path,
    results: Path,
    known_classes: Sequence[str | int] | None = None,
    image_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Score a COCO results file against a COCO or LVIS annotation file.

    Args:
        ground_truth: annotations; LVIS rules are used if its images carry LVIS's two lists.
        results: detections with masks (run lengths or polygons), boxes, or both.
        known_classes: names or ids; gives the splits ``known`` and ``novel`` (all others).
        image_ids: score these images only; all of the ground truth if not given. Images without
            detections count: their objects are missed.

    Returns:
        ``mask`` and ``box``, each None (with the reason in ``protocol``) or
        ``{AP, AP50, AP75, APs, APm, APl, AR, AR1, AR10, AR100, ARs, ARm, ARl}``; with LVIS rules
        ``{AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR, AR300, ARs, ARm, ARl}``; with known
        classes also ``known`` and ``novel``, each ``{AP, AP50}``. ``per_class``: name ->
        ``{mask_ap, box_ap}``. ``protocol``: the rules in words. ``counts``. All in [0, 1]; None
        where no object exists to be found.

    Raises:
        DataError: files that are missing, unreadable or do not belong together.
    """
    truth = read_ground_truth(ground_truth)
    detections = read_results(results, truth)
    if image_ids is not None:
        unknown = sorted(set(image_ids) - set(truth.images))
        if unknown:
            raise DataError(
                f"image_id {unknown[0]} is not in the ground truth", where=str(ground_truth)
            )
        keep = frozenset(image_ids)
        truth = GroundTruthFile(
            {i: size for i, size in truth.images.items() if i in keep},
            truth.categories,
            [o for o in truth.objects if o.image_id in keep],
            truth.absent,
            truth.not_exhaustive,
            truth.federated,
        )
        detections = [d for d in detections if d.image_id in keep]
    known = None if known_classes is None else class_ids(known_classes, truth.categories)
    return evaluate(truth, detections, known)


def evaluate_tables(
    images: Iterable[int],
    truth: pa.Table,
    predictions: pa.Table,
    categories: Sequence[Mapping[str, Any]],
    class_to_category: Mapping[int, int],
) -> dict[str, Any]:
    """Score the pipeline's ``predictions`` against ``truth_instances``.

    Args:
        images: ids of the images that were predicted on.
        truth: rows of ``truth_instances`` of these images.
        predictions: rows of ``predictions``.
        categories: the ground truth's ``categories`` member (``category_id``, ``name``, ``known``).
        class_to_category: the category each class of the segmenter stands for. Predictions of
            other classes are dropped (after the segmenter's own limit per image).

    Returns:
        as :func:`evaluate_files`, with ``known`` and ``novel``; ``counts.unmapped_predictions``.
    """
    ids = set(images)
    sizes: dict[int, tuple[int, int] | None] = dict.fromkeys(ids)
    objects = []
    for row in truth.to_pylist():
        if row["image_id"] not in ids:
            continue
        size = (row["height_px"], row["width_px"])
        sizes[row["image_id"]] = size
        objects.append(
            Object(
                row["image_id"],
                row["category_id"],
                _rle_or_none(row["mask_rle"], size),
                _xywh(row["bbox_xyxy"]),
                row["area_px"],
                row["iscrowd"],
            )
        )
    detections, unmapped = [], 0
    for row in predictions.to_pylist():
        category_id = class_to_category.get(row["class_index"])
        if category_id is None:
            unmapped += 1
            continue
        size = (row["height_px"], row["width_px"])
        detections.append(
            Object(
                row["image_id"],
                category_id,
                _rle_or_none(row["mask_rle"], size),
                _xywh(row["bbox_xyxy"]),
                score=row["score"],
            )
        )
    ordered = sorted(categories, key=lambda c: c["category_id"])
    result = evaluate(
        GroundTruthFile(sizes, [Category(c["category_id"], c["name"]) for c in ordered], objects),
        detections,
        [c["category_id"] for c in ordered if c["known"]],
    )
    result["counts"]["unmapped_predictions"] = unmapped
    return result


def _rle_or_none(counts: str | None, size: tuple[int, int]) -> dict[str, Any] | None:
    return None if counts is None else {"size": list(size), "counts": counts}


def _xywh(bbox_xyxy: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = bbox_xyxy
    return x0, y0, x1 - x0, y1 - y0


def evaluate(
    truth: GroundTruthFile, detections: Sequence[Object], known: Sequence[int] | None = None
) -> dict[str, Any]:
    """Score detections against ground truth, both checked. See :func:`evaluate_files`."""
    rules = "lvis" if truth.federated else "coco"
    detections = _considered(truth, detections) if truth.federated else detections
    result: dict[str, Any] = {"mask": None, "box": None, "per_class": {}, "protocol": {}}
    per_class: dict[str, dict[str, float | None]] = {
        name: {"mask_ap": None, "box_ap": None} for name in _unique_names(truth.categories)
    }
    for kind in ("mask", "box"):
        shapes = _shapes(truth, detections, kind)
        if isinstance(shapes, str):
            result["protocol"][kind] = f"not scored: {shapes}"
            continue
        found = _curves(truth, shapes, rules)
        result[kind] = _summary(found, truth, known, rules)
        result["protocol"][kind] = f"{PROTOCOLS[rules]}; {shapes.note}"
        for k, entry in enumerate(per_class.values()):
            entry[f"{kind}_ap"] = found.ap([k])
    result["per_class"] = per_class
    result["counts"] = {
        "images": len(truth.images),
        "objects": len(truth.objects),
        "detections": len(detections),
        "classes": len(truth.categories),
    }
    return result


def _unique_names(categories: Sequence[Category]) -> list[str]:
    uses = Counter(c.name for c in categories)
    return [c.name if uses[c.name] == 1 else f"{c.name} ({c.category_id})" for c in categories]


def _considered(truth: GroundTruthFile, detections: Sequence[Object]) -> list[Object]:
    """LVIS: the 300 best of each image, then only classes that were looked for in the image."""
    by_image: dict[int, list[Object]] = defaultdict(list)
    for detection in detections:
        by_image[detection.image_id].append(detection)
    present: dict[int, set[int]] = defaultdict(set)
    for entry in truth.objects:
        present[entry.image_id].add(entry.category_id)
    kept = []
    for image_id, rows in by_image.items():
        looked_for = present[image_id] | truth.absent[image_id]
        best = sorted(rows, key=lambda d: d.score, reverse=True)[:LVIS_MAX_DETS]
        kept += [d for d in best if d.category_id in looked_for]
    return kept


@dataclass(frozen=True)
class _Shapes:
    """Objects and detections of every image and class, as pycocotools' IoU takes them."""

    objects: Mapping[tuple[int, int], list[tuple[Object, Any, float]]]  # shape, area_px
    detections: Mapping[tuple[int, int], list[tuple[Object, Any, float]]]
    note: str


def _shapes(truth: GroundTruthFile, detections: Sequence[Object], kind: Kind) -> _Shapes | str:
    """Shapes of one kind, or the reason why they cannot be had."""
    if kind == "mask":
        for name, rows in (("ground-truth objects", truth.objects), ("detections", detections)):
            without = sum(row.segmentation is None for row in rows)
            if without:
                return f"{without} of {len(rows)} {name} have no mask"
    derived = sum(d.bbox_xywh is None for d in detections)
    note = "area of the mask" if kind == "mask" else "area of the box"
    if kind == "box" and derived:
        note = f"{derived} boxes derived from masks, with the mask's area"
    sizes = truth.images
    objects, found = defaultdict(list), defaultdict(list)
    for row in truth.objects:
        shape, area = _shape(row, sizes[row.image_id], kind)
        objects[row.image_id, row.category_id].append(
            (row, shape, area if row.area_px is None else row.area_px)
        )
    for row in detections:
        shape, area = _shape(row, sizes[row.image_id], kind)
        found[row.image_id, row.category_id].append((row, shape, area))
    return _Shapes(objects, found, note)


def _shape(row: Object, size: tuple[int, int] | None, kind: Kind) -> tuple[Any, float]:
    if kind == "box" and row.bbox_xywh is not None:
        return list(row.bbox_xywh), row.bbox_xywh[2] * row.bbox_xywh[3]
    rle = _rle(row.segmentation, size)
    shape = rle if kind == "mask" else coco_mask.toBbox(rle).tolist()
    return shape, float(coco_mask.area(rle))


def _rle(segmentation: Any, size: tuple[int, int] | None) -> Any:
    if isinstance(segmentation, list):
        if size is None:
            raise DataError("polygons need the image's height and width")
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    if isinstance(segmentation["counts"], list):
        return coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return segmentation


def _curves(truth: GroundTruthFile, shapes: _Shapes, rules: str) -> Curves:
    column = {c.category_id: k for k, c in enumerate(truth.categories)}
    records = [ClassRecord() for _ in truth.categories]
    cap = COCO_MAX_DETS[-1] if rules == "coco" else None
    for image_id, category_id in sorted(shapes.objects.keys() | shapes.detections.keys()):
        record = records[column[category_id]]
        objects = shapes.objects.get((image_id, category_id), [])
        ignored_G = np.array(
            [o.crowd if rules == "coco" else o.ignore for o, _, _ in objects], dtype=np.bool_
        )
        ignored_AG = ignored_G | outside_areas(np.array([area for _, _, area in objects]))
        record.num_objects_A += (~ignored_AG).sum(axis=1)
        rows = shapes.detections.get((image_id, category_id), [])
        if not rows:
            continue
        score = np.array([d.score for d, _, _ in rows], dtype=np.float64)
        order = np.argsort(-score, kind="stable")[:cap]
        outside = outside_areas(np.array([rows[i][2] for i in order]))
        if rules == "lvis" and category_id in truth.not_exhaustive[image_id]:
            outside = np.ones_like(outside)  # an unmatched detection may be right
        crowd = np.array([o.crowd and rules == "coco" for o, _, _ in objects], dtype=np.bool_)
        iou = np.zeros((len(order), 0))
        if objects:
            iou = np.asarray(
                coco_mask.iou(
                    [rows[i][1] for i in order],
                    [shape for _, shape, _ in objects],
                    crowd.astype(np.uint8).tolist(),
                )
            )
        record.add(score[order], *match_pair(iou, ignored_AG, crowd, outside))
    return curves(records, COCO_MAX_DETS if rules == "coco" else (None,))


def _summary(
    found: Curves, truth: GroundTruthFile, known: Sequence[int] | None, rules: str
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "AP": found.ap(),
        "AP50": found.ap(iou=0.5),
        "AP75": found.ap(iou=0.75),
    }
    result |= {f"AP{area[0]}": found.ap(area=area) for area in AREAS[1:]}
    if rules == "lvis":
        for group in "rcf":
            of_group = [k for k, c in enumerate(truth.categories) if c.frequency == group]
            result[f"AP{group}"] = found.ap(of_group)
        result["AR"] = result["AR300"] = found.ar(0)
    else:
        result |= {f"AR{cap}": found.ar(m) for m, cap in enumerate(COCO_MAX_DETS)}
        result["AR"] = result[f"AR{COCO_MAX_DETS[-1]}"]
    result |= {f"AR{area[0]}": found.ar(-1, area=area) for area in AREAS[1:]}
    if known is not None:
        is_known = set(known)
        for name, wanted in (("known", True), ("novel", False)):
            columns = [
                k for k, c in enumerate(truth.categories) if (c.category_id in is_known) is wanted
            ]
            result[name] = {"AP": found.ap(columns), "AP50": found.ap(columns, iou=0.5)}
    return result


def format_scores(scores: Mapping[str, Any]) -> str:
    """The result of :func:`evaluate_files` as a small table for people."""
    columns: dict[str, dict[str, float | None]] = {}
    for kind in ("mask", "box"):
        if scores[kind] is not None:
            split = {k: v for k, v in scores[kind].items() if isinstance(v, Mapping)}
            columns[kind] = {k: v for k, v in scores[kind].items() if k not in split}
            columns[kind] |= {f"{part} {k}": v for part in split for k, v in split[part].items()}
    lines = [f"{'':<12}" + "".join(f"{kind:>9}" for kind in columns)]
    for name in next(iter(columns.values()), {}):
        values = [column[name] for column in columns.values()]
        shown = (f"{'n/a':>9}" if value is None else f"{value:>9.4f}" for value in values)
        lines.append(f"{name:<12}" + "".join(shown))
    lines += [f"{kind}: {scores['protocol'][kind]}" for kind in ("mask", "box")]
    return "\n".join(lines)
