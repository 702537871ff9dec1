"""Mask and box average precision of detections, by COCO's rules or LVIS's, for files and tables.

The numbers equal those of pycocotools' ``COCOeval`` and lvis-api's ``LVISEval`` with their default
parameters to the last bit (tests hold them to it, to lvis-api by numbers it gave). The way there is
another one: see :mod:`gcdis_ray.metrics.ap_rows` and :mod:`gcdis_ray.metrics.average_precision`.

What the rules leave open is settled so: a mask's area counts for mask AP and a box's for box AP,
also when results carry both; results with masks only are given their tight boxes (and, as in
pycocotools, keep the mask's area); an undefined mean is ``None`` where the originals say -1; ids of
annotations play no part (the originals take an object with id 0 for none).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.files.arrow_columns import as_column, as_texts, matrix, numbers
from gcdis_ray.files.lvis_rules import FREQUENCIES
from gcdis_ray.metrics.ap_rows import KINDS, Detections, Kind, Rules, Truth, match_images
from gcdis_ray.metrics.average_precision import Curves, Matched, curves
from gcdis_ray.metrics.detection_matching import AREAS, Ints
from gcdis_ray.metrics.files.coco_files import (
    Category,
    GroundTruthFile,
    class_ids,
    read_ground_truth,
)
from gcdis_ray.metrics.files.coco_results import read_results


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
        classes also ``known`` and ``novel``, each ``{AP, AP50, classes}``, and ``known_weight``,
        the w of AP = w known + (1 - w) novel: counted known classes over all counted ones.
        ``classes``: those that count, for they have an object. ``per_class``: name ->
        ``{mask_ap, box_ap}``. ``protocol``: the rules in words. ``counts``. All in [0, 1]; None
        where no object exists to be found.

    Raises:
        DataError: files that are missing, unreadable or do not belong together.
    """
    file = read_ground_truth(ground_truth, None if image_ids is None else set(image_ids))
    known = None if known_classes is None else class_ids(known_classes, file.categories)
    return evaluate_results(file, read_results(results, file), known)


def evaluate_results(
    file: GroundTruthFile, detections: Detections, known: Sequence[int] | None
) -> dict[str, Any]:
    """Score detections that count, of files that are read. See :func:`evaluate_files`."""
    result = evaluate(file.truth, detections, file.categories, known)
    if file.truth.rules.federated:
        result["counts"]["frequency_contradicted"] = file.wrong_frequencies
    return result


def listed_categories(rows: Iterable[Mapping[str, Any]]) -> tuple[list[Category], list[int]]:
    """Categories by rising id, and the ids of known ones, of the ``categories`` member."""
    ordered = sorted(rows, key=lambda c: c["category_id"])
    return (
        [Category(c["category_id"], c["name"], c.get("frequency")) for c in ordered],
        [c["category_id"] for c in ordered if c["known"]],
    )


def evaluate(
    truth: Truth,
    detections: Detections,
    categories: Sequence[Category],
    known: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Score detections that count, of columns in memory. See :func:`evaluate_files`."""
    totals = Totals.of(truth, detections)
    matches, object_counts = match_images(truth, detections, totals.kinds())
    found = class_curves([matches], [object_counts], truth.rules, range(truth.num_classes))
    return summary(found, totals, categories, truth.rules, known)


@dataclass(frozen=True)
class Totals:
    """What was scored; sums over shards."""

    images: int = 0
    objects: int = 0
    detections: int = 0  # that count
    unmapped_predictions: int = 0
    objects_without_mask: int = 0
    detections_without_mask: int = 0
    derived_boxes: int = 0

    @staticmethod
    def of(truth: Truth, found: Detections, unmapped: int = 0) -> Totals:
        return Totals(
            len(truth.image_ids_I),
            len(truth.class_G),
            len(found.class_D),
            unmapped,
            int(truth.masks.missing().sum()),
            int(found.without_mask().sum()),
            int(np.isnan(found.bbox_D4[:, 0]).sum()),
        )

    def reason(self, kind: Kind) -> str | None:
        """Why a kind cannot be scored."""
        if kind == "mask":
            for without, total, name in (
                (self.objects_without_mask, self.objects, "ground-truth objects"),
                (self.detections_without_mask, self.detections, "detections"),
            ):
                if without:
                    return f"not scored: {without} of {total} {name} have no mask"
        return None

    def kinds(self) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if self.reason(kind) is None)

    def note(self, kind: Kind) -> str:
        if kind == "mask":
            return "area of the mask"
        if self.derived_boxes:
            return f"{self.derived_boxes} boxes derived from masks, with the mask's area"
        return "area of the box"


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


def summary(
    found: Mapping[Kind, Curves],
    totals: Totals,
    categories: Sequence[Category],
    rules: Rules,
    known: Sequence[int] | None,
) -> dict[str, Any]:
    """The numbers of :func:`evaluate_files` from the curves of all classes."""
    result: dict[str, Any] = {"mask": None, "box": None, "per_class": {}, "protocol": {}}
    per_class: dict[str, dict[str, float | None]] = {
        name: {"mask_ap": None, "box_ap": None} for name in _unique_names(categories)
    }
    for kind in KINDS:
        if (reason := totals.reason(kind)) is not None:
            result["protocol"][kind] = reason
            continue
        result[kind] = _numbers(found[kind], categories, rules, known)
        result["protocol"][kind] = f"{rules.protocol}; {totals.note(kind)}"
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
    lines += [f"mapping: {scores['mapping']['protocol']}"] if "mapping" in scores else []
    if wrong := scores["counts"].get("frequency_contradicted"):
        lines.append(
            f"frequency: {wrong} of {scores['counts']['classes']} classes are marked r, c or f "
            "against their own image_count"
        )
    return "\n".join(lines)
