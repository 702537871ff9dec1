"""Scores of a COCO results file whose category ids are names of clusters.

The rules are those of a run's ``evaluate``, and so are the numbers for the same detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.cluster_mapping import match_outputs
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import BEST, in_mapping_half
from gcdis_ray.evaluation.tables import CLUSTER_COUNTS
from gcdis_ray.metrics.detection_columns import Kind
from gcdis_ray.metrics.files.coco_files import GroundTruthFile, class_ids, read_ground_truth
from gcdis_ray.metrics.files.coco_outputs import MATCH_IOU, OutputCounts, count_outputs
from gcdis_ray.metrics.files.coco_results import StandsFor, read_results
from gcdis_ray.metrics.files.file_scores import evaluate_results
from gcdis_ray.metrics.files.mask_faults import MaskFaults
from gcdis_ray.training.plan import Show


def evaluate_mapped_files(
    ground_truth: Path,
    results: Path,
    rule: MappingConfig,
    known_classes: Sequence[str | int] | None = None,
    image_ids: Sequence[int] | None = None,
    max_per_image: int | None = None,
    areas: Kind | None = None,
    show: Show = lambda progress: None,
) -> dict[str, Any]:
    """Score a results file after giving its category ids the names of true classes.

    By ``novel_only`` ids of known classes stand for themselves and every other id is an output, a
    novel class's too; by ``all`` every id is. The file is read twice.

    Args:
        rule: ``source`` is ``split_val`` or ``detections``; the others need a run.
        max_per_image: detections scored per image. None: 100, and by LVIS's rules 300.
        areas: see :func:`gcdis_ray.metrics.files.file_scores.evaluate_files`.
        show: how much of the results has been read, from 0 on each time.

    Returns:
        as :func:`gcdis_ray.metrics.files.file_scores.evaluate_files`, with ``mapping`` as in the
        metrics of a run.

    Raises:
        ConfigError: a source that needs a run; ``novel_only`` without known classes;
            a limit below 1.
        DataError: see there; ``split_val`` with no image in one of the halves.
    """
    if rule.source not in ("split_val", "detections"):
        raise ConfigError(
            f"source {rule.source} needs a run: files hold neither its crops nor its models",
            where="--mapping-source",
            fix="use split_val or detections, or score the run: gcdis evaluate CONFIG",
        )
    if rule.scope == "novel_only" and not known_classes:
        raise ConfigError(
            "scope novel_only needs to know which classes are known",
            where="--mapping-scope",
            fix="add --known-classes, or use --mapping-scope all",
        )
    if max_per_image is not None and max_per_image < 1:
        raise ConfigError(f"{max_per_image} is not 1 or more", where="--max-per-image")
    wanted = None if image_ids is None else set(image_ids)
    file, images, scored = _parts(ground_truth, wanted, rule)
    known = None if known_classes is None else class_ids(known_classes, file.categories)
    best = max_per_image or BEST[file.truth.rules.name]
    counts = count_outputs(results, file, images, best, show)
    column_of = _assigned(counts, file, known or [], rule)
    if scored is not None:
        file = read_ground_truth(ground_truth, scored)
    rules = replace(file.truth.rules, max_per_image=best, areas=areas)
    file = replace(file, truth=replace(file.truth, rules=rules))
    stands_for = StandsFor(column_of, use_up=rule.drop == "after_topk")
    faults = MaskFaults()
    detections = read_results(results, file, stands_for, faults, show)
    result = evaluate_results(file, detections, known, faults)
    ids = [c.category_id for c in file.categories]
    result["mapping"] = {
        "source": rule.source,
        "scope": rule.scope,
        "drop": rule.drop,
        "name": rule.name,
        "leak_free": rule.leak_free,
        "protocol": rule.words(MATCH_IOU, best, counts.most),
        "class_to_category": {str(k): ids[c] for k, c in sorted(column_of.items())},
    }
    return result


def _parts(
    path: Path, wanted: set[int] | None, rule: MappingConfig
) -> tuple[GroundTruthFile, np.ndarray, set[int] | None]:
    """The truth, which of its images the map is counted on, and ids of those scored if fewer."""
    file = read_ground_truth(path, wanted)
    ids = file.truth.image_ids_I
    if rule.source == "detections":
        return file, np.ones(len(ids), dtype=np.bool_), None
    half = in_mapping_half(ids.tolist())
    if half.all() or not half.any():
        raise DataError(
            f"split_val has no image to {'score' if half.any() else 'map by'} among {len(ids)}",
            where=str(path),
            fix="use more images, or --mapping-source detections",
        )
    return file, half, set(ids[~half].tolist())


def _assigned(
    counts: OutputCounts, file: GroundTruthFile, known: Sequence[int], rule: MappingConfig
) -> dict[int, int]:
    """Category id of results -> column of the class."""
    outputs = np.union1d(counts.ids_K, np.array(known, dtype=np.int64))
    output_of = {category_id: n for n, category_id in enumerate(outputs.tolist())}
    column_of = {c.category_id: n for n, c in enumerate(file.categories)}
    categories = np.array([c.category_id for c in file.categories], dtype=np.int64)
    classes = ClassColumns(
        [{"category_id": c.category_id, "known": c.category_id in known} for c in file.categories],
        {output_of[category_id]: column_of[category_id] for category_id in known},
    )
    output_P = np.searchsorted(outputs, counts.ids_K)[counts.output_P]
    table = pa.table(
        {
            "cluster_id": output_P.astype(np.int32),
            "category_id": categories[counts.class_P],
            "count": counts.count_P,
        },
        schema=CLUSTER_COUNTS,
    )
    found = match_outputs([table], classes, len(outputs), rule.scope)
    return {int(outputs[output]): column for output, column in found.items()}
