"""Average recall of proposals against pycocotools, and by hand."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_sets import SIZE, as_boxes, random_set

from gcdis_ray.metrics.average_recall import BEST, GROUPS, average_recall, count_met, in_groups
from gcdis_ray.metrics.detection_columns import KINDS, Kind
from gcdis_ray.metrics.detection_matching import AREAS
from gcdis_ray.store.schemas import PROPOSALS, TRUTH_INSTANCES

KNOWN = (3, 5)
_SHAPE = {"height_px": SIZE[0], "width_px": SIZE[1]}


def many_proposals(seed: int) -> tuple[dict, list[dict]]:
    """A set with some images of more than ten proposals and objects that several meet."""
    truth, found = random_set(seed)
    more = random_set(seed + 1000)[1] + random_set(seed + 2000)[1]
    return truth, [*found, *more, *found[::2]]


def tables(truth: dict, found: list[dict]) -> tuple[pa.Table, pa.Table, pa.Table]:
    objects = [
        {
            "instance_id": row["id"],
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "class_index": -1,
            "bbox_xyxy": _corners(row["bbox"]),
            "mask_rle": row["segmentation"]["counts"],
            "area_px": row["area"],
            "iscrowd": bool(row["iscrowd"]),
            "split": "unlabeled",
            **_SHAPE,
        }
        for row in truth["annotations"]
    ]
    proposals = [
        {
            "proposal_id": number,
            "image_id": row["image_id"],
            "bbox_xyxy": _corners(box["bbox"]),
            "mask_rle": row["segmentation"]["counts"],
            "area_px": 1.0,
            "objectness": row["score"],
            "origin": "model",
            **_SHAPE,
        }
        for number, (row, box) in enumerate(zip(found, as_boxes(found), strict=True))
    ]
    return (
        pa.table({"image_id": [image["id"] for image in truth["images"]]}),
        pa.Table.from_pylist(objects, TRUTH_INSTANCES),
        pa.Table.from_pylist(proposals, PROPOSALS),
    )


def _corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def ours(truth: dict, found: list[dict], kind: Kind) -> dict[str, list[list[float | None]]]:
    met_KMAT, objects_KA = count_met(*in_groups(*tables(truth, found), KNOWN), kind)
    return {group: average_recall(met_KMAT[k], objects_KA[k]) for k, group in enumerate(GROUPS)}


def pycocotools(truth: Any, found: list[dict], kind: Kind) -> list[list[float | None]]:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = truth
        gt.createIndex()
        rows: Any = [dict(row) for row in (found if kind == "mask" else as_boxes(found))]
        evaluation = COCOeval(gt, gt.loadRes(rows), "segm" if kind == "mask" else "bbox")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(BEST)
        evaluation.evaluate()
        evaluation.accumulate()
    recall_TKAM = evaluation.eval["recall"]
    return [[_mean(recall_TKAM[:, :, a, m]) for a in range(len(AREAS))] for m in range(len(BEST))]


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(np.mean(values)) if values.size else None


def _only(truth: dict, known: bool) -> dict:
    """The set without the objects of the other group."""
    rows = [row for row in truth["annotations"] if (row["category_id"] in KNOWN) == known]
    return {**truth, "annotations": rows}


@pytest.mark.parametrize("kind", KINDS)
def test_equals_pycocotools_to_the_last_bit(kind: Kind) -> None:
    crowded, seen = 0, set()
    for seed in range(10):
        truth, found = many_proposals(seed)
        found = [{**row, "category_id": 1} for row in found]
        per_image = np.unique([row["image_id"] for row in found], return_counts=True)[1]
        crowded += int(per_image.max() > BEST[0])
        mine = ours(truth, found, kind)
        assert mine["all"] == pycocotools(truth, found, kind), seed
        assert mine["known"] == pycocotools(_only(truth, True), found, kind), seed
        assert mine["novel"] == pycocotools(_only(truth, False), found, kind), seed
        seen |= {value for values in mine.values() for row in values for value in row}
    assert crowded > 5
    assert len(seen) > 50
