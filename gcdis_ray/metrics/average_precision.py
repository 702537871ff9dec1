"""Average precision as COCO and LVIS define it: curves from matched detections, scores from them.

Bit for bit the numbers of pycocotools and lvis-api, by another way. Interpolated precision at a
recall is the highest at that recall or any higher one, and precision rises only where a detection
is right. So only right detections are ever looked at: the n-th has precision n / (n + wrong ones
before it), and a recall of r is reached by the first n with n / objects >= r.

Shape letters: N detections, A area ranges, T IoU thresholds, R recall points, K classes, M numbers
of detections per image and class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gcdis_ray.files.arrow_columns import as_column, as_texts, matrix, numbers
from gcdis_ray.metrics.ap_rows import Totals
from gcdis_ray.metrics.detection_columns import KINDS, Kind, Rules
from gcdis_ray.metrics.detection_matching import AREAS, IOU_T, NUM_BITS, Bools, Floats, Ints
from gcdis_ray.records.lvis_rules import FREQUENCIES

RECALL_R: Floats = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Curves:
    """Precision and recall of every class; -1 where a class has no object that counts."""

    precision_ATRK: Floats  # with the largest number of detections
    recall_MATK: Floats

    def ap(
        self, classes: Sequence[int] | None = None, iou: float | None = None, area: str = "all"
    ) -> float | None:
        """Mean precision over thresholds, recall points and classes, in [0, 1].

        Args:
            classes: columns to average over, all if not given.
            iou: one of ``IOU_T``; all of them if not given.

        Returns:
            None if none of the classes has an object.
        """
        values = self.precision_ATRK[AREAS.index(area)]
        return _mean(_select(values, iou, classes))

    def ar(self, m: int, classes: Sequence[int] | None = None, area: str = "all") -> float | None:
        """Mean of the highest recall over thresholds and classes, with the ``m``-th cap."""
        return _mean(_select(self.recall_MATK[m, AREAS.index(area)], None, classes))

    def counted(self) -> Bools:
        """(K,) classes with an object that counts: those that a mean is over."""
        return self.recall_MATK[-1, 0, 0] > -1


def empty_curves(num_classes: int, num_caps: int) -> Curves:
    """Curves of classes without any object."""
    shape = (len(AREAS), len(IOU_T))
    return Curves(
        np.full((*shape, len(RECALL_R), num_classes), -1.0),
        np.full((num_caps, *shape, num_classes), -1.0),
    )


def _select(values: Floats, iou: float | None, classes: Sequence[int] | None) -> Floats:
    if iou is not None:
        values = values[np.isclose(IOU_T, iou)]
    return values if classes is None else values[..., np.asarray(classes, dtype=np.int64)]


def _mean(values: Floats) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


@dataclass(frozen=True)
class Matched:
    """Matched detections of some classes, in any order."""

    class_N: Ints  # columns
    image_N: Ints
    rank_N: Ints  # among the detections of the same image and class, by falling score
    score_N: Floats
    matched_N: Ints  # packed, see detection_matching.match
    ignored_N: Ints


def class_curves(
    matches: Iterable[pa.Table], object_counts: Iterable[pa.Table], rules: Rules, classes: range
) -> dict[Kind, Curves]:
    """Curves of a range of classes from rows of all shards, of every kind.

    Args:
        matches, object_counts: tables of these schemas; rows of other classes are left out.
    """
    rows = pa.concat_tables([_of_classes(table, classes) for table in matches])
    counts = pa.concat_tables([_of_classes(table, classes) for table in object_counts])
    found: dict[Kind, Curves] = {}
    for kind in KINDS:
        num_objects = _num_objects(counts, kind, classes)
        scored = rows.filter(pc.is_valid(rows[f"{kind}_matched"]))  # pyright: ignore[reportAttributeAccessIssue]
        columns = [
            numbers(scored[name]).astype(np.int64) for name in ("class_column", "image_id", "rank")
        ]
        found[kind] = curves(
            Matched(
                columns[0] - classes.start,
                columns[1],
                columns[2],
                numbers(scored["score"]),
                numbers(scored[f"{kind}_matched"]),
                numbers(scored[f"{kind}_ignored"]),
            ),
            num_objects,
            rules.max_dets,
        )
    return found


def _of_classes(table: pa.Table, classes: range) -> pa.Table:
    classes_N = numbers(table["class_column"])
    inside = (classes_N >= classes.start) & (classes_N < classes.stop)
    return table if inside.all() else table.filter(as_column(inside))


def _num_objects(counts: pa.Table, kind: Kind, classes: range) -> Ints:
    mine = counts.filter(pc.equal(counts["kind"], as_texts([kind])[0]))  # pyright: ignore[reportAttributeAccessIssue]
    num_KA = np.zeros((len(classes), len(AREAS)), dtype=np.int64)
    class_ = numbers(mine["class_column"]) - classes.start
    np.add.at(num_KA, class_, matrix(mine["num_objects"]))
    return num_KA


def curves(found: Matched, num_objects_KA: Ints, max_dets: Sequence[int | None]) -> Curves:
    """Precision at 101 recall points and final recall of every class.

    Args:
        num_objects_KA: objects that count.
        max_dets: caps on detections per image and class, rising; None is no cap. Precision is
            taken with the last.
    """
    num_classes = len(num_objects_KA)
    result = empty_curves(num_classes, len(max_dets))
    precision, recall = result.precision_ATRK, result.recall_MATK
    # equal scores: by image, then by their order there
    order = np.lexsort((found.rank_N, found.image_N, -found.score_N, found.class_N))
    if max_dets[-1] is not None:
        order = order[found.rank_N[order] < max_dets[-1]]
    class_N, rank_N = found.class_N[order], found.rank_N[order]
    matched_N, ignored_N = found.matched_N[order], found.ignored_N[order]
    starts = np.searchsorted(class_N, np.arange(num_classes))
    needed: list[Ints] = [_needed(num_objects_KA[:, a]) for a in range(len(AREAS))]
    for bit in range(NUM_BITS):
        a, t = divmod(bit, len(IOU_T))
        counted = np.flatnonzero(num_objects_KA[:, a])
        hit, used = (matched_N >> bit & 1) > 0, (ignored_N >> bit & 1) == 0
        true = np.flatnonzero(hit & used)
        right_N = np.bincount(class_N[true], minlength=num_classes)
        for m, cap in enumerate(max_dets):
            inside = right_N
            if cap is not None:
                inside = np.bincount(class_N[true[rank_N[true] < cap]], minlength=num_classes)
            recall[m, a, t, counted] = inside[counted] / num_objects_KA[counted, a]
        wrong = np.concatenate([[0], np.cumsum(~hit & used)])
        values = _interpolated(true, class_N[true], right_N, wrong, wrong[starts])
        first = np.cumsum(right_N) - right_N
        reached = needed[a] <= right_N[:, None]
        where = np.where(reached, first[:, None] + needed[a] - 1, len(true))
        precision_KR = np.append(values, 0.0)[where]
        precision[a, t][:, counted] = precision_KR[counted].T
    return result


def _needed(num_objects_K: Ints) -> Ints:
    """(K, R) the fewest right detections that reach each recall; one at least."""
    objects = np.maximum(num_objects_K, 1)[:, None].astype(np.float64)
    fewest = np.maximum(np.floor(RECALL_R * objects) - 1, 1)
    while (low := fewest / objects < RECALL_R).any():  # as divided there, not as multiplied here
        fewest += low
    return fewest.astype(np.int64)


def _interpolated(
    true: Ints, class_: Ints, right_K: NDArray[np.integer], wrong: Ints, wrong_before_K: Ints
) -> Floats:
    """Precision of right detections (by class and falling score): the highest from there on."""
    first = np.cumsum(right_K) - right_K
    tp = (np.arange(len(true)) - first[class_] + 1).astype(np.float64)
    fp = (wrong[true] - wrong_before_K[class_]).astype(np.float64)
    values = tp / (fp + tp + np.spacing(1))
    backwards = values[::-1]
    several = np.flatnonzero(right_K > 1)
    ends = len(true) - first[several]
    for low, high in zip((ends - right_K[several]).tolist(), ends.tolist(), strict=True):
        part = backwards[low:high]
        np.maximum.accumulate(part, out=part)
    return values


@dataclass(frozen=True)
class Category:
    """A true class, as scores name it."""

    category_id: int
    name: str
    frequency: str | None = None  # LVIS: r, c or f


def summary(
    found: Mapping[Kind, Curves],
    totals: Totals,
    categories: Sequence[Category],
    rules: Rules,
    known: Sequence[int] | None,
) -> dict[str, Any]:
    """Scores from the curves of all classes, as of
    :func:`gcdis_ray.metrics.files.file_scores.evaluate_files`."""
    result: dict[str, Any] = {"mask": None, "box": None, "per_class": {}, "protocol": {}}
    per_class: dict[str, dict[str, float | None]] = {
        name: {"mask_ap": None, "box_ap": None} for name in _unique_names(categories)
    }
    for kind in KINDS:
        if (reason := totals.reason(kind)) is not None:
            result["protocol"][kind] = reason
            continue
        result[kind] = _numbers(found[kind], categories, rules, known)
        result["protocol"][kind] = f"{rules.protocol}; {totals.note(kind, rules.areas)}"
        for k, entry in enumerate(per_class.values()):
            entry[f"{kind}_ap"] = found[kind].ap([k])
    result["per_class"] = per_class
    result["counts"] = {
        "images": totals.images,
        "objects": totals.objects,
        "detections": totals.detections,
        "classes": len(categories),
    }
    return result


def _unique_names(categories: Sequence[Category]) -> list[str]:
    uses = Counter(c.name for c in categories)
    return [c.name if uses[c.name] == 1 else f"{c.name} ({c.category_id})" for c in categories]


def _numbers(
    found: Curves, categories: Sequence[Category], rules: Rules, known: Sequence[int] | None
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "AP": found.ap(),
        "AP50": found.ap(iou=0.5),
        "AP75": found.ap(iou=0.75),
    }
    result |= {f"AP{area[0]}": found.ap(area=area) for area in AREAS[1:]}
    if rules.federated:
        for group in FREQUENCIES:
            of_group = [k for k, c in enumerate(categories) if c.frequency == group]
            result[f"AP{group}"] = found.ap(of_group)
        result["AR"] = result["AR300"] = found.ar(0)
    else:
        result |= {f"AR{cap}": found.ar(m) for m, cap in enumerate(rules.max_dets)}
        result["AR"] = result[f"AR{rules.max_dets[-1]}"]
    result |= {f"AR{area[0]}": found.ar(-1, area=area) for area in AREAS[1:]}
    counted = found.counted()
    result["classes"] = int(counted.sum())
    if known is not None:
        is_known = np.isin([c.category_id for c in categories], list(known))
        for name, part in (("known", is_known), ("novel", ~is_known)):
            columns = np.flatnonzero(part).tolist()
            result[name] = {
                "AP": found.ap(columns),
                "AP50": found.ap(columns, iou=0.5),
                "classes": int(counted[part].sum()),
            }
        result["known_weight"] = (
            result["known"]["classes"] / result["classes"] if result["classes"] else None
        )
    return result
