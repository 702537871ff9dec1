"""Scores of bare files: COCO results against COCO or LVIS annotations, without a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gcdis_ray.errors import ConfigError


def score_files(
    ground_truth: Path,
    results: Path,
    *,
    known_classes: Sequence[str | int] | None,
    images: str | None,
    mapping: Mapping[str, str],
    max_per_image: int | None,
) -> dict[str, Any]:
    """AP of a result file, as :func:`gcdis_ray.metrics.detection.evaluate_files` gives it.

    Args:
        known_classes: names or category ids.
        images: ``FILE`` or ``FILE:KEY`` with the ids of the images to score; None: all.
        mapping: what is given of source, scope and drop. With a source the results' category ids
            are names of clusters, and are mapped to classes first.
        max_per_image: with a mapping: detections scored per image; None: as the rules have it.

    Raises:
        ConfigError: a part of the mapping, or ``max_per_image``, without a source; odd ``images``.
        DataError: files that cannot be scored.
    """
    image_ids = _read_ids(images) if images else None
    if "source" in mapping:
        from gcdis_ray.tasks.mapped_files import evaluate_mapped_files
        from gcdis_ray.tasks.mapping_config import MappingConfig

        rule = MappingConfig.model_validate(mapping)
        return evaluate_mapped_files(
            ground_truth, results, rule, known_classes, image_ids, max_per_image
        )
    if mapping or max_per_image is not None:
        name = f"--mapping-{next(iter(mapping))}" if mapping else "--max-per-image"
        raise ConfigError(
            f"{name} is for results that are mapped to classes, and there is no --mapping-source",
            where="gcdis evaluate",
            fix="add --mapping-source split_val or --mapping-source detections",
        )
    from gcdis_ray.metrics.detection import evaluate_files

    return evaluate_files(ground_truth, results, known_classes, image_ids=image_ids)


def _read_ids(where: str) -> list[int]:
    path, _, key = where.partition(":")
    try:
        ids = json.loads(Path(path).read_text())
        ids = ids[key] if key else ids
        if isinstance(ids, list) and ids and all(type(i) is int for i in ids):
            return ids
        what = "no image in it" if ids == [] else "not a list of image ids"
    except OSError as error:
        what = error.strerror or str(error)
    except (ValueError, KeyError, TypeError) as error:
        what = f"no such list ({error})"
    raise ConfigError(what, where=f"--images {where}", fix="use FILE.json or FILE.json:KEY")
