"""A shard of predictions meets its shard of truth.

What is kept are a few bytes of each detection that counts: which objects it was matched to at every
threshold, and how many there were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.cluster_mapping import OutputMap
from gcdis_ray.evaluation.detection_curves import score_matches
from gcdis_ray.evaluation.scored_images import Rules, Terms, in_mapping_half
from gcdis_ray.evaluation.tables import MATCH_TOTALS
from gcdis_ray.metrics.ap_rows import Totals, match_images
from gcdis_ray.metrics.detection_columns import RULES, Drop, detection_columns, truth_columns
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Table


def score_detections(
    predictions: Table,
    truth_images: Table,
    truth_instances: Table,
    classes: ClassColumns,
    outputs: OutputMap,
    terms: Terms,
    work: Work,
) -> dict[str, Any]:
    """Scores as of :func:`gcdis_ray.metrics.files.file_scores.evaluate_files`, shard by shard.

    With ``split_val`` they are those of the images that the map was not counted on.
    """
    match = MatchShard(
        category_ids=tuple(row["category_id"] for row in classes.categories),
        class_to_category=outputs.categories(classes),
        rules=terms.rules,
        max_per_image=terms.best,
        drop=outputs.rule.drop,
    )
    found = work.map_shards(
        match,
        [predictions, truth_images, truth_instances],
        gives=("matches", "object_counts", "match_totals"),
        args=_other_half(truth_images) if outputs.rule.source == "split_val" else None,
    )
    return score_matches(found, classes.categories, terms.rules, work)


def _other_half(truth_images: Table) -> list[dict[str, list[int]]]:
    args = []
    for shard in truth_images.iter_shards(["image_id"]):
        ids = shard["image_id"].to_numpy()
        args.append({"image_ids": ids[~in_mapping_half(ids.tolist())].tolist()})
    return args


@dataclass(frozen=True)
class MatchShard:
    """Matches the predictions of a shard of images to its objects. Implements ShardTask.

    Takes ``predictions``, ``truth_images`` and ``truth_instances``; gives ``matches``,
    ``object_counts`` and ``match_totals``.

    Args:
        category_ids: of the ground truth, rising: columns of classes.
        class_to_category: the category that each class of the segmenter stands for; predictions
            of others are unmapped.
        rules: ``lvis`` needs images with LVIS's lists.
        split: of the images and objects that are scored.
        max_per_image: the best so many predictions of an image are taken, over all classes; None:
            300 by LVIS rules, all of them by COCO's.
        drop: whether unmapped predictions leave before they are, or have their share of the number.
    """

    category_ids: Sequence[int]
    class_to_category: Mapping[int, int]
    rules: Rules
    split: str = "validation"
    max_per_image: int | None = None
    drop: Drop = "after_topk"

    def open(self, device: str) -> Callable[..., dict[str, pa.Table]]:
        return self.match

    def match(
        self,
        index: int,
        predictions: pa.Table,
        truth_images: pa.Table,
        truth_instances: pa.Table,
        *,
        image_ids: Sequence[int] | None = None,
    ) -> dict[str, pa.Table]:
        """Args:
        image_ids: score these images of the shard only.
        """
        images = _of_split(truth_images, self.split)
        if image_ids is not None:
            wanted = pa.array(image_ids, pa.int64())
            images = images.filter(pc.is_in(images["image_id"], value_set=wanted))  # pyright: ignore[reportAttributeAccessIssue]
        objects = _of_split(truth_instances, self.split)
        truth = truth_columns(images, objects, self.category_ids, RULES[self.rules])
        found, unmapped = detection_columns(
            truth,
            predictions,
            self.category_ids,
            self.class_to_category,
            self.max_per_image,
            self.drop,
        )
        totals = Totals.of(truth, found, unmapped)
        matches, counts = match_images(truth, found, totals.kinds())
        return {
            "matches": matches,
            "object_counts": counts,
            "match_totals": pa.Table.from_pylist([asdict(totals)], MATCH_TOTALS),
        }


def _of_split(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.equal(table["split"], split))  # pyright: ignore[reportAttributeAccessIssue]
