"""A run's detections scored in one piece: what any split of them has to give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from gcdis_ray.evaluation.detection_curves import listed_categories
from gcdis_ray.metrics.detection_columns import RULES, detection_columns, truth_columns
from gcdis_ray.metrics.files.file_scores import evaluate


def evaluate_tables(
    images: Iterable[int],
    truth: pa.Table,
    predictions: pa.Table,
    categories: Sequence[Mapping[str, Any]],
    class_to_category: Mapping[int, int],
) -> dict[str, Any]:
    """Score ``predictions`` against ``truth_instances`` in one piece, by COCO's rules.

    Args:
        images: ids of the images that were predicted on.
        truth: rows of ``truth_instances`` of these images.
        predictions: rows of ``predictions``.
        categories: the ground truth's ``categories`` member (``category_id``, ``name``, ``known``).
        class_to_category: the category each class of the segmenter stands for. Predictions of
            other classes are dropped (after the segmenter's own limit per image).

    Returns:
        as :func:`~gcdis_ray.metrics.files.file_scores.evaluate_files`, with ``known``, ``novel``;
        ``counts.unmapped_predictions``.
    """
    ordered, known = listed_categories(categories)
    ids = [c.category_id for c in ordered]
    listed = pa.table({"image_id": pa.array(sorted(set(images)), pa.int64())})
    columns = truth_columns(listed, truth, ids, RULES["coco"])
    found, unmapped = detection_columns(
        columns, predictions, ids, class_to_category, None, "after_topk"
    )
    result = evaluate(columns, found, ordered, known)
    result["counts"]["unmapped_predictions"] = unmapped
    return result
