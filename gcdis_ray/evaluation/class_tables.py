"""A row per true class and a row per output: counted in one go over all crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.crop_labels import HEAT, Arrays
from gcdis_ray.evaluation.crop_truth import CropTruth
from gcdis_ray.metrics.cluster_classes import count_pairs
from gcdis_ray.metrics.frequency import Third

Ints = NDArray[np.int64]


def per_class(
    classes: ClassColumns,
    truth: CropTruth,
    named_U: Ints,
    assignments: Arrays,
    third_of: Mapping[int, Third],
    ap: Sequence[Mapping[str, float | None]] | None,
) -> list[dict[str, Any]]:
    """The metrics' ``per_class``, in the order of columns.

    Args:
        named_U: the column each unlabeled crop was named as.
        assignments: ``class_index`` and, where the method has them, ``headness`` and
            ``temperature``, by crop_index.
        ap: ``mask_ap`` and ``box_ap`` of every column, if detections were scored.
    """
    column_U = classes.columns(truth.category_U)
    shown = column_U >= 0
    crops = np.bincount(column_U[shown], minlength=len(classes))
    right = np.bincount(column_U[shown & (named_U == column_U)], minlength=len(classes))
    heat = _heat(classes, truth, column_U, assignments)
    rows = []
    for column, category in enumerate(classes.categories):
        num_crops = int(crops[column])
        rows.append(
            {
                "category_id": category["category_id"],
                "name": category["name"],
                "known": category["known"],
                "num_objects": truth.objects_per_category.get(category["category_id"], 0),
                "frequency": third_of.get(column),
                "num_crops": num_crops,
                **heat[column],
                "accuracy": float(right[column] / num_crops) if num_crops else None,
                "mask_ap": ap[column]["mask_ap"] if ap else None,
                "box_ap": ap[column]["box_ap"] if ap else None,
            }
        )
    return rows


def _heat(
    classes: ClassColumns, truth: CropTruth, column_U: Ints, assignments: Arrays
) -> list[dict[str, Any]]:
    """By column: the crops that discovery trained on, and their mean headness and temperature.

    Labeled crops are of the class they were given, unlabeled ones of the object they show.
    """
    given_N = assignments["class_index"]
    column_of = np.full(int(given_N.max(initial=-1)) + 2, -1, dtype=np.int64)  # last: no label
    for output, column in classes.column_of_output.items():
        if output < len(column_of) - 1:
            column_of[output] = column
    column_N = column_of[given_N]
    column_N[truth.crop_index_U] = column_U
    of_class = column_N >= 0
    count = np.bincount(column_N[of_class], minlength=len(classes))
    means = {}
    for name in HEAT & assignments.keys():
        total = np.bincount(column_N[of_class], assignments[name][of_class], len(classes))
        means[name] = total / np.maximum(count, 1)
    return [
        {
            "num_training_crops": int(count[column]),
            **{
                name: float(means[name][column]) if name in means and count[column] else None
                for name in sorted(HEAT)
            },
        }
        for column in range(len(classes))
    ]


def per_output(
    outputs: Sequence[Mapping[str, Any]],
    num_outputs: int,
    classes: ClassColumns,
    truth: CropTruth,
    labels: Arrays,
    mapping: Mapping[int, int],
) -> list[dict[str, Any]]:
    """The metrics' ``clusters``.

    Args:
        outputs: rows of ``discovered_classes``.
        num_outputs: above every output's number.
        truth: of the crops that are in a class.
        labels: ``cluster_id`` and, if it was judged, ``reliability`` of each of them, in the order
            of ``truth``.
        mapping: output -> column.
    """
    label_U, column_U = labels["cluster_id"], classes.columns(truth.category_U)
    shown = column_U >= 0
    pairs = count_pairs(label_U[shown], column_U[shown], num_outputs, len(classes))
    size = np.bincount(label_U, minlength=num_outputs)
    judged = labels.get("reliability")
    trust = None if judged is None else np.bincount(label_U, judged, num_outputs)
    rows = []
    for row in outputs:
        output = row["class_index"]
        there = slice(pairs.indptr[output], pairs.indptr[output + 1])
        columns, sizes = pairs.indices[there], pairs.data[there]
        column = mapping.get(output)
        named = classes.categories[column] if column is not None else None
        most = classes.categories[columns[sizes.argmax()]] if len(sizes) else None
        rows.append(
            {
                "class_index": output,
                "name": row["name"],
                "known": row["known"],
                "size": int(size[output]),
                "num_matched": int(sizes.sum()),
                "purity": float(sizes.max() / sizes.sum()) if len(sizes) else None,
                "majority_category_id": most["category_id"] if most else None,
                "mapped_category_id": named["category_id"] if named else None,
                "mapped_name": named["name"] if named else None,
                "mean_reliability": (
                    float(trust[output] / size[output])
                    if trust is not None and size[output]
                    else None
                ),
            }
        )
    return rows
