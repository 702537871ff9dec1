"""Mask and box average precision of bare files, by COCO's rules or LVIS's.

The numbers equal those of pycocotools' ``COCOeval`` and lvis-api's ``LVISEval`` with their default
parameters to the last bit, but for one thing said below (tests hold them to it, to lvis-api by
numbers it gave). The way there is another one: see :mod:`gcdis_ray.metrics.ap_rows` and
:mod:`gcdis_ray.metrics.average_precision`.

What the rules leave open is settled so: a mask's area counts for mask AP and a box's for box AP.
Where results carry both, the originals take the box's for both, so that numbers by size of mask AP
differ; with ``areas="box"`` they are equal. Results with masks only are given their tight boxes
(and, as in pycocotools, keep the mask's area); an undefined mean is ``None`` where the originals
say -1; ids of annotations play no part (the originals take an object with id 0 for none).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.ap_rows import Totals, match_images
from gcdis_ray.metrics.average_precision import Category, class_curves, summary
from gcdis_ray.metrics.detection_columns import Detections, Kind, Truth
from gcdis_ray.metrics.files.coco_files import (
    GroundTruthFile,
    class_ids,
    read_ground_truth,
)
from gcdis_ray.metrics.files.coco_results import read_results
from gcdis_ray.metrics.files.mask_faults import MaskFaults
from gcdis_ray.training.plan import Show
from gcdis_ray.words import counted


def evaluate_files(
    ground_truth: Path,
    results: Path,
    known_classes: Sequence[str | int] | None = None,
    image_ids: Sequence[int] | None = None,
    areas: Kind | None = None,
    show: Show = lambda progress: None,
) -> dict[str, Any]:
    """Score a COCO results file against a COCO or LVIS annotation file.

    Args:
        ground_truth: annotations; LVIS rules are used if its images carry LVIS's two lists.
        results: detections with masks (run lengths or polygons), boxes, or both.
        known_classes: names or ids; gives the splits ``known`` and ``novel`` (all others).
        image_ids: score these images only; all of the ground truth if not given. Images without
            detections count: their objects are missed.
        areas: whose areas say which detections are small, medium and large; None: the mask's for
            mask AP and the box's for box AP. A detection without box has its mask's area.
        show: how much of the results has been read.

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
        DataError: files that are missing, unreadable or do not belong together; areas of masks are
            asked for, and a detection has none.
    """
    file = read_ground_truth(ground_truth, None if image_ids is None else set(image_ids))
    file = replace(file, truth=replace(file.truth, rules=replace(file.truth.rules, areas=areas)))
    known = None if known_classes is None else class_ids(known_classes, file.categories)
    faults = MaskFaults()
    detections = read_results(results, file, None, faults, show)
    return evaluate_results(file, detections, known, faults)


def evaluate_results(
    file: GroundTruthFile,
    detections: Detections,
    known: Sequence[int] | None,
    faults: MaskFaults,
) -> dict[str, Any]:
    """Score detections that count, of files that are read. See :func:`evaluate_files`.

    Args:
        faults: masks of detections that say nothing.
    """
    result = evaluate(file.truth, detections, file.categories, known)
    for key, found in (("objects", file.mask_faults), ("detections", faults)):
        result["counts"][f"{key}_with_unusable_mask"] = found.count
        if found.count:
            result["protocol"]["mask"] += (
                f"; {counted(found.count, 'mask')} of {key} cannot be used, first {found.first}"
            )
    if file.truth.rules.federated:
        result["counts"]["frequency_contradicted"] = file.wrong_frequencies
    return result


def evaluate(
    truth: Truth,
    detections: Detections,
    categories: Sequence[Category],
    known: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Score detections that count, of columns in memory. See :func:`evaluate_files`."""
    totals = Totals.of(truth, detections)
    if truth.rules.areas == "mask" and (without := totals.detections_without_mask):
        raise DataError(
            f"{without} of {totals.detections} detections have no mask, so no area of one",
            where="--areas mask",
            fix="use --areas box, or leave it out",
        )
    matches, object_counts = match_images(truth, detections, totals.kinds())
    found = class_curves([matches], [object_counts], truth.rules, range(truth.num_classes))
    return summary(found, totals, categories, truth.rules, known)


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
