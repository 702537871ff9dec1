"""Which true object each crop of an unlabeled image shows: by overlap of masks or boxes, or, where
an image is an object, by image.

A shard task, so that it runs where the data lies and on as many workers as there are; what comes
back are a few numbers per crop and per class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.evaluation.tables import CLASS_OBJECTS, CROP_TRUTH
from gcdis_ray.metrics.one_to_one import greedy_pairs
from gcdis_ray.metrics.row_overlaps import OBJECT_COLUMNS, Row, overlap
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import WHOLE_IMAGE

_PROPOSAL_COLUMNS = ("proposal_id", "origin", *OBJECT_COLUMNS)


def by_image(objects: pa.Table, columns: Iterable[str]) -> dict[int, list[dict[str, Any]]]:
    """Rows of a shard by ``image_id``, in their order."""
    rows: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in objects.select(list(columns)).to_pylist():
        rows[row["image_id"]].append(row)
    return dict(rows)


def true_objects(truth: pa.Table, split: str) -> dict[int, list[dict[str, Any]]]:
    """Objects of one split by image, without crowds: a crowd is no object of its own."""
    mine = truth.filter(
        pc.and_(pc.equal(truth["split"], split), pc.invert(truth["iscrowd"]))  # pyright: ignore[reportAttributeAccessIssue]
    )
    return by_image(mine, (*OBJECT_COLUMNS, "category_id"))


def _shown(proposals: Sequence[Row], objects: Sequence[Row]) -> NDArray[np.float64]:
    """How well the proposals of an image show its objects, (len(proposals), len(objects))."""
    if proposals[0]["origin"] == WHOLE_IMAGE:
        return np.full((1, len(objects)), float(len(objects) == 1))
    return overlap(proposals, objects)


@dataclass(frozen=True)
class MatchCrops:
    """Shard task ``[truth_instances, crops, proposals]`` -> ``crop_truth, class_objects``.

    Crops are matched to true objects greedily, one to one by falling IoU in every image. Where an
    image is an object, its crop shows the one true object of the image, wherever its box lies; if
    there are several it shows none of them.

    Args:
        min_iou: least overlap of a match.
    """

    min_iou: float

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        return self.match

    def match(
        self, index: int, truth: pa.Table, crops: pa.Table, proposals: pa.Table
    ) -> Mapping[str, pa.Table]:
        """Args:
        crops: ``crop_index`` and ``source_id`` (the proposal's) of unlabeled crops: table
            ``pseudo_labels``, or ``crops``, whose labeled ones are passed over.
        """
        if "class_index" in crops.column_names:
            crops = crops.filter(pc.less(crops["class_index"], 0))  # pyright: ignore[reportAttributeAccessIssue]
        objects_of = true_objects(truth, "unlabeled")
        row_of = {proposal: n for n, proposal in enumerate(crops["source_id"].to_pylist())}
        category = np.full(crops.num_rows, -1, dtype=np.int64)
        iou = np.zeros(crops.num_rows, dtype=np.float32)
        with_proposal: defaultdict[int, int] = defaultdict(int)
        for image_id, found in by_image(proposals, _PROPOSAL_COLUMNS).items():
            objects = objects_of.get(image_id, ())
            iou_PG = _shown(found, objects)
            for g in np.flatnonzero((iou_PG >= self.min_iou).any(axis=0)):
                with_proposal[objects[g]["category_id"]] += 1
            cropped = [p for p, row in enumerate(found) if row["proposal_id"] in row_of]
            for p, g, value in greedy_pairs(iou_PG[cropped], self.min_iou):
                n = row_of[found[cropped[p]]["proposal_id"]]
                category[n], iou[n] = objects[g]["category_id"], value
        return {
            "crop_truth": pa.table(
                {"crop_index": crops["crop_index"], "category_id": category, "iou": iou},
                schema=CROP_TRUTH,
            ),
            "class_objects": _class_objects(truth, with_proposal),
        }


def _class_objects(truth: pa.Table, with_proposal: Mapping[int, int]) -> pa.Table:
    counts: defaultdict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0])
    for split, category_id, crowd in zip(
        *(truth[name].to_pylist() for name in ("split", "category_id", "iscrowd")), strict=True
    ):
        counts[split, category_id][crowd] += 1
    rows = [
        {
            "split": split,
            "category_id": category_id,
            "objects": objects,
            "crowds": crowds,
            "with_proposal": with_proposal.get(category_id, 0) if split == "unlabeled" else 0,
        }
        for (split, category_id), (objects, crowds) in sorted(counts.items())
    ]
    return pa.Table.from_pylist(rows, schema=CLASS_OBJECTS)


@dataclass(frozen=True)
class CropTruth:
    """What the unlabeled crops of a run show, U of them in the order of ``crops``.

    Args:
        crop_index_U: int64.
        category_U: the category of the matched true object, -1 for none.
        objects_per_category: category_id -> true objects of unlabeled images.
        num_with_proposal: of these objects, with a proposal of enough overlap.
        categories_present: of any object or crowd, in unlabeled or validation images.
        validation_is_told: whether there is any in validation images.
    """

    crop_index_U: NDArray[np.int64]
    category_U: NDArray[np.int64]
    objects_per_category: Mapping[int, int]
    num_with_proposal: int
    categories_present: frozenset[int]
    validation_is_told: bool

    @classmethod
    def read(cls, crop_truth: Table, class_objects: Table) -> CropTruth:
        rows = crop_truth.read(["crop_index", "category_id"])
        counts = class_objects.read().group_by(["split", "category_id"])
        per_class = counts.aggregate([("objects", "sum"), ("with_proposal", "sum")]).to_pylist()
        mine = [row for row in per_class if row["split"] == "unlabeled" and row["objects_sum"]]
        return cls(
            rows["crop_index"].to_numpy(),
            rows["category_id"].to_numpy(),
            {row["category_id"]: row["objects_sum"] for row in mine},
            sum(row["with_proposal_sum"] for row in mine),
            frozenset(row["category_id"] for row in per_class),
            any(row["split"] == "validation" for row in per_class),
        )

    def only(self, kept_U: NDArray[np.bool_]) -> CropTruth:
        """The same of some of the crops."""
        kept = self.crop_index_U[kept_U], self.category_U[kept_U]
        return replace(self, crop_index_U=kept[0], category_U=kept[1])

    @property
    def num_objects(self) -> int:
        return sum(self.objects_per_category.values())

    @property
    def num_matched(self) -> int:
        """Crops, and so objects, of the one-to-one matches."""
        return int((self.category_U >= 0).sum())
