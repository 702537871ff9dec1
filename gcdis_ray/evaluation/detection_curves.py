"""Average precision over shards: matching by image, curves by class, numbers from the curves.

``MatchShard`` reads the co-sharded tables ``predictions``, ``truth_images`` and ``truth_instances``
and keeps a few bytes of each detection that counts. ``AccumulateShard`` reads those of its classes
from all shards. :func:`score_shards` puts the curves together. Any split of images and classes
gives the same numbers to the last bit, and they are those of
:func:`gcdis_ray.metrics.detection.evaluate_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.evaluation.tables import CURVES, MATCH_TOTALS, MATCHES, OBJECT_COUNTS
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.metrics.ap_rows import KINDS, RULES, Kind, match_images
from gcdis_ray.metrics.average_precision import Curves, empty_curves
from gcdis_ray.metrics.detection import Totals, class_curves, listed_categories, summary
from gcdis_ray.metrics.detection_matching import Ints
from gcdis_ray.metrics.detection_tables import Drop, detection_columns, truth_columns
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Table

RulesName = Literal["coco", "lvis"]
_ROWS_AT_ONCE = 131_072


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
    rules: RulesName
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


@dataclass(frozen=True)
class AccumulateShard:
    """Curves of a group of classes. Implements ShardTask; takes no tables, one shard a group.

    Gives ``curves``: rows of classes that have an object.
    """

    matches: Table
    object_counts: Table
    rules: RulesName

    def open(self, device: str) -> Callable[..., dict[str, pa.Table]]:
        return self.accumulate

    def accumulate(self, index: int, *, first_class: int, end_class: int) -> dict[str, pa.Table]:
        classes = range(first_class, end_class)
        found = class_curves(
            self.matches.iter_shards(),
            self.object_counts.iter_shards(),
            RULES[self.rules],
            classes,
        )
        rows = []
        for kind, curves in found.items():
            for column in np.flatnonzero(curves.counted()).tolist():
                rows.append(
                    {
                        "class_column": first_class + column,
                        "kind": kind,
                        "precision": curves.precision_ATRK[..., column].ravel(),
                        "recall": curves.recall_MATK[..., column].ravel(),
                    }
                )
        return {"curves": pa.Table.from_pylist(rows, CURVES)}


def gather(table: Table, schema: pa.Schema, work: Work) -> Table:
    """The rows of many small shards in fewer, larger ones: every group of classes reads them all,
    and what a read costs must not count once a shard and group."""
    writer = work.spool(table.name, schema)
    held, rows = [schema.empty_table()], 0
    for shard in table.iter_shards():
        held.append(shard)
        rows += len(shard)
        if rows >= _ROWS_AT_ONCE:
            writer.add(pa.concat_tables(held))
            held, rows = held[:1], 0
    writer.add(pa.concat_tables(held))
    return writer.close()


def matches_of_classes(matches: Table, num_classes: int) -> Ints:
    """(K,) detections that count, of each class."""
    counts_K = np.zeros(num_classes, dtype=np.int64)
    for shard in matches.iter_shards(["class_column"]):
        counts_K += np.bincount(shard["class_column"].to_numpy(), minlength=num_classes)
    return counts_K


def class_groups(
    matches_K: Ints, most_classes: int = 128, most_matches: int = 500_000
) -> list[dict[str, int]]:
    """Arguments of :class:`AccumulateShard`: neighbouring classes, so many that a group's curves
    and detections fit into memory. A class of more detections than that has a group of its own.

    Args:
        matches_K: detections of each class.
        most_classes, most_matches: of a group.
    """
    bounds, held = [0], 0
    for column, number in enumerate(matches_K.tolist()):
        full = column - bounds[-1] == most_classes or held + number > most_matches
        if full and column > bounds[-1]:
            bounds.append(column)
            held = 0
        held += number
    bounds.append(len(matches_K))
    return [{"first_class": low, "end_class": high} for low, high in pairwise(bounds)]


def accumulate(
    matches: Table, object_counts: Table, num_classes: int, rules: RulesName, work: Work
) -> Table:
    """The table ``curves`` from what :class:`MatchShard` gave of all shards."""
    matches = gather(matches, MATCHES, work)
    object_counts = gather(object_counts, OBJECT_COUNTS, work)
    return work.map_shards(
        AccumulateShard(matches, object_counts, rules),
        [],
        gives=("curves",),
        args=class_groups(matches_of_classes(matches, num_classes)),
        unit="class groups",
    )["curves"]


def score_shards(
    curves: Iterable[pa.Table],
    totals: Iterable[pa.Table],
    categories: Sequence[Mapping[str, Any]],
    rules: RulesName,
) -> dict[str, Any]:
    """The numbers of :func:`gcdis_ray.metrics.detection.evaluate_files`, of all shards.

    Args:
        curves, totals: tables ``curves`` and ``match_totals``, as from ``Table.iter_shards()``.
        categories: the ground truth's ``categories`` member (``category_id``, ``name``, ``known``;
            LVIS: ``frequency``).
    """
    ordered, known = listed_categories(categories)
    max_dets = RULES[rules].max_dets
    found: dict[Kind, Curves] = {kind: empty_curves(len(ordered), len(max_dets)) for kind in KINDS}
    for table in curves:
        for kind, all_of_kind in found.items():
            rows = table.filter(pc.equal(table["kind"], kind))  # pyright: ignore[reportAttributeAccessIssue]
            columns = rows["class_column"].to_numpy()
            for name, target in (
                ("precision", all_of_kind.precision_ATRK),
                ("recall", all_of_kind.recall_MATK),
            ):
                values = matrix(rows[name]).reshape(len(rows), *target.shape[:-1])
                target[..., columns] = np.moveaxis(values, 0, -1)
    every = pa.concat_tables(list(totals))
    sums = {name: sum(every[name].to_pylist()) for name in MATCH_TOTALS.names}
    result = summary(found, Totals(**sums), ordered, RULES[rules], known)
    result["counts"]["unmapped_predictions"] = sums["unmapped_predictions"]
    return result
