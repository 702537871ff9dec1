"""How many of the true objects of unlabeled images proposals meet, before anything is sorted.

A shard of proposals meets its shard of truth; what is kept of it are counts, so sums over any
shards give the same numbers to the last bit: those of :mod:`gcdis_ray.metrics.average_recall`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.scored_images import ARE_IMAGES
from gcdis_ray.evaluation.tables import PROPOSAL_RECALL, PROPOSAL_TOTALS
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.metrics import discovery
from gcdis_ray.metrics.average_recall import (
    BEST,
    GROUPS,
    PROTOCOL,
    SHAPE,
    average_recall,
    count_met,
    in_groups,
)
from gcdis_ray.metrics.detection_columns import KINDS, Kind
from gcdis_ray.metrics.detection_matching import AREAS
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import WHOLE_IMAGE

GIVES = ("proposal_recall", "proposal_totals")
NO_SIZES: dict[str, float | None] = dict.fromkeys(AREAS[1:])
_SIZES = "sizes by the ground truth's areas, small to 32^2 px, medium to 96^2 px"
_OF: Mapping[Kind, str] = {"mask": "overlap of masks", "box": "overlap of boxes"}


def score_proposals(
    proposals: Table,
    truth_images: Table,
    truth_instances: Table,
    classes: ClassColumns,
    work: Work,
) -> dict[str, Any]:
    """The metrics' ``proposals``; writes the tables of :data:`GIVES`. There are no numbers where
    images are objects: nothing was looked for."""
    ids = [classes.categories[column]["category_id"] for column in classes.known]
    found = work.map_shards(
        MatchProposals(tuple(ids)), [proposals, truth_images, truth_instances], gives=GIVES
    )
    block = proposals_block(found["proposal_recall"].read(), found["proposal_totals"].read())
    return block | {"reason": ARE_IMAGES} if _are_images(proposals) else block


def _are_images(proposals: Table) -> bool:
    """Whether every proposal is a whole image."""
    shards = (shard["origin"].to_pylist() for shard in proposals.iter_shards(["origin"]))
    return next((origins[0] == WHOLE_IMAGE for origins in shards if origins), False)


@dataclass(frozen=True)
class MatchProposals:
    """Shard task ``[proposals, truth_images, truth_instances]`` -> :data:`GIVES`, on unlabeled
    images.

    Args:
        known_ids: category ids of known classes.
    """

    known_ids: Sequence[int]

    def open(self, device: str) -> Callable[..., dict[str, pa.Table]]:
        return self.match

    def match(
        self, index: int, proposals: pa.Table, truth_images: pa.Table, truth_instances: pa.Table
    ) -> dict[str, pa.Table]:
        images, objects = _unlabeled(truth_images), _unlabeled(truth_instances)
        if WHOLE_IMAGE in proposals["origin"].to_pylist()[:1]:
            images, objects = images.slice(0, 0), objects.slice(0, 0)
        truth, found = in_groups(images, objects, proposals, self.known_ids)
        without = objects["mask_rle"].null_count
        rows = []
        for kind in KINDS if not without else KINDS[1:]:
            met_KMAT, objects_KA = count_met(truth, found, kind)
            rows += [
                {"kind": kind, "group": group, "objects": objects_A, "met": met_MAT.ravel()}
                for group, objects_A, met_MAT in zip(GROUPS, objects_KA, met_KMAT, strict=True)
            ]
        per_image = np.bincount(found.image_D[found.class_D == 0])
        totals = {
            "images": len(images),
            "objects": pc.sum(pc.invert(objects["iscrowd"])).as_py() or 0,  # pyright: ignore[reportAttributeAccessIssue]
            "objects_without_mask": without,
            "proposals": int(per_image.sum()),
            "most_proposals": int(per_image.max(initial=0)),
        }
        return {
            "proposal_recall": pa.Table.from_pylist(rows, PROPOSAL_RECALL),
            "proposal_totals": pa.Table.from_pylist([totals], PROPOSAL_TOTALS),
        }


def _unlabeled(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["split"], "unlabeled"))  # pyright: ignore[reportAttributeAccessIssue]


def proposals_block(recall: pa.Table, totals: pa.Table) -> dict[str, Any]:
    """The metrics' ``proposals``, from the rows of all shards.

    ``mask_ar10``, ``mask_ar100``, ``box_ar10``, ``box_ar100``: ``{all, known, novel}`` in [0, 1];
    the same with ``_by_size``: ``{small, medium, large}``, of all classes.
    """
    sums = {
        name: sum(totals[name].to_pylist())
        for name in ("images", "objects", "objects_without_mask", "proposals")
    }
    without = sums.pop("objects_without_mask")
    block: dict[str, Any] = {f"num_{name}": number for name, number in sums.items()}
    block["most_per_image"] = max(totals["most_proposals"].to_pylist(), default=0)
    block["protocol"] = {}
    for kind in KINDS:
        if without and kind == "mask":
            found = {}
            block["protocol"][kind] = f"not scored: {without} ground-truth objects have no mask"
        else:
            found = {group: _recall(recall, kind, group) for group in GROUPS}
            block["protocol"][kind] = f"{PROTOCOL}; {_OF[kind]}; {_SIZES}"
        for m, best in enumerate(BEST):
            name = f"{kind}_ar{best}"
            parts = {group: values[m][0] for group, values in found.items()}
            sizes = dict(zip(AREAS[1:], found["all"][m][1:], strict=True)) if found else NO_SIZES
            block |= {name: parts or discovery.NOTHING, f"{name}_by_size": sizes}
    told = "no true object in" if sums["images"] else "no ground truth for"
    block["reason"] = None if sums["objects"] else f"{told} unlabeled images"
    return block


def _recall(recall: pa.Table, kind: Kind, group: str) -> list[list[float | None]]:
    rows = recall.filter(
        pc.and_(pc.equal(recall["kind"], kind), pc.equal(recall["group"], group))  # pyright: ignore[reportAttributeAccessIssue]
    )
    objects_A = matrix(rows["objects"]).sum(axis=0, dtype=np.int64)
    met_MAT = matrix(rows["met"]).reshape(len(rows), *SHAPE).sum(axis=0, dtype=np.int64)
    return average_recall(met_MAT, objects_A)
