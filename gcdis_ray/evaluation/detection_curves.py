"""Precision and recall of all classes from the matches of all shards, and the numbers from them.

``AccumulateShard`` reads the matches of a group of classes from every shard. Any split of images
and classes gives the same numbers to the last bit, and they are those of
:func:`gcdis_ray.metrics.files.file_scores.evaluate_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.evaluation.scored_images import Rules
from gcdis_ray.evaluation.tables import CURVES, MATCH_TOTALS, MATCHES, OBJECT_COUNTS
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.metrics.ap_rows import Totals
from gcdis_ray.metrics.average_precision import (
    Category,
    Curves,
    class_curves,
    empty_curves,
    summary,
)
from gcdis_ray.metrics.detection_columns import KINDS, RULES, Kind
from gcdis_ray.metrics.detection_matching import Ints
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Table

_ROWS_AT_ONCE = 131_072


def score_matches(
    found: Mapping[str, Table], categories: Sequence[Mapping[str, Any]], rules: Rules, work: Work
) -> dict[str, Any]:
    """Scores, as of :func:`gcdis_ray.metrics.files.file_scores.evaluate_files`, of all shards.

    Args:
        found: what :class:`~gcdis_ray.evaluation.detection_matches.MatchShard` gave.
        categories: the ground truth's ``categories`` (``category_id``, ``name``, ``known``;
            LVIS: ``frequency``).
    """
    curves = accumulate(found["matches"], found["object_counts"], len(categories), rules, work)
    totals = found["match_totals"]
    return score_shards(curves.iter_shards(), totals.iter_shards(), categories, rules)


def accumulate(
    matches: Table, object_counts: Table, num_classes: int, rules: Rules, work: Work
) -> Table:
    """The table ``curves`` from the matches of all shards."""
    matches = gather(matches, MATCHES, work)
    object_counts = gather(object_counts, OBJECT_COUNTS, work)
    return work.map_shards(
        AccumulateShard(matches, object_counts, rules),
        [],
        gives=("curves",),
        args=class_groups(matches_of_classes(matches, num_classes)),
        unit="class groups",
    )["curves"]


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


@dataclass(frozen=True)
class AccumulateShard:
    """Curves of a group of classes. Implements ShardTask; takes no tables, one shard a group.

    Gives ``curves``: rows of classes that have an object.
    """

    matches: Table
    object_counts: Table
    rules: Rules

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


def score_shards(
    curves: Iterable[pa.Table],
    totals: Iterable[pa.Table],
    categories: Sequence[Mapping[str, Any]],
    rules: Rules,
) -> dict[str, Any]:
    """The numbers of :func:`score_matches` from tables ``curves`` and ``match_totals``."""
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


def listed_categories(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Category], list[int]]:
    """Categories by rising id, and the ids of known ones, of the ``categories`` member."""
    ordered = sorted(rows, key=lambda c: c["category_id"])
    return (
        [Category(c["category_id"], c["name"], c.get("frequency")) for c in ordered],
        [c["category_id"] for c in ordered if c["known"]],
    )
