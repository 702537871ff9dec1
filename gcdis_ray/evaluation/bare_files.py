"""Scores of bare files: COCO results against COCO or LVIS annotations, without a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gcdis_ray.errors import ConfigError
from gcdis_ray.training.plan import Show


def score_files(
    ground_truth: Path,
    results: Path,
    *,
    known_classes: Sequence[str | int] | None,
    images: str | None,
    mapping: Mapping[str, str],
    max_per_image: int | None,
    areas: Literal["mask", "box"] | None = None,
    show: Show = lambda progress: None,
) -> dict[str, Any]:
    """AP of a result file, as :func:`gcdis_ray.metrics.files.file_scores.evaluate_files` gives it.

    Args:
        known_classes: names or category ids.
        images: ``FILE`` or ``FILE:KEY`` with the ids of the images to score; None: all.
        mapping: what is given of source, scope and drop. With a source the results' category ids
            are names of clusters, and are mapped to classes first.
        max_per_image: with a mapping: detections scored per image; None: as the rules have it.
        areas: whose areas say which detections are small, medium and large; None: the mask's for
            mask AP, the box's for box AP.
        show: how much of the results has been read.

    Raises:
        ConfigError: a part of the mapping, or ``max_per_image``, without a source; odd ``images``.
        DataError: files that cannot be scored.
    """
    image_ids = _read_ids(images) if images else None
    if "source" in mapping:
        from gcdis_ray.evaluation.mapped_files import evaluate_mapped_files
        from gcdis_ray.evaluation.mapping_config import MappingConfig

        rule = MappingConfig.model_validate(mapping)
        return evaluate_mapped_files(
            ground_truth, results, rule, known_classes, image_ids, max_per_image, areas, show
        )
    if mapping or max_per_image is not None:
        name = f"--mapping-{next(iter(mapping))}" if mapping else "--max-per-image"
        raise ConfigError(
            f"{name} is for results that are mapped to classes, and there is no --mapping-source",
            where="gcdis evaluate",
            fix="add --mapping-source split_val or --mapping-source detections",
        )
    from gcdis_ray.metrics.files.file_scores import evaluate_files

    return evaluate_files(ground_truth, results, known_classes, image_ids, areas, show)


def _read_ids(given: str) -> list[int]:
    from gcdis_ray.data.sets.data_config import JsonList
    from gcdis_ray.data.sets.json_lists import read_ids
    from gcdis_ray.store.source import source_file

    where = f"--images {given}"
    path, key = _path_and_key(given)
    folder, name = source_file(path, where=where)
    chosen = JsonList.model_construct(file=name, key=key)  # any path, not a name in a data set
    ids = read_ids(folder, chosen, where).tolist()
    if not ids:
        raise ConfigError("no image in it", where=where, fix="list the images to score")
    return ids


def _path_and_key(given: str) -> tuple[str, str]:
    """``FILE`` and ``KEY``, empty for none: addresses have colons, too, before their last slash."""
    path, colon, key = given.rpartition(":")
    return (path, key) if colon and "/" not in key else (given, "")
