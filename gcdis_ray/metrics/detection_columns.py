"""The pipeline's tables as the columns that :mod:`gcdis_ray.metrics.ap_rows` scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.lookup import places
from gcdis_ray.metrics.ap_rows import Detections, Rules, Truth, considered
from gcdis_ray.metrics.detection_matching import Floats, Ints
from gcdis_ray.metrics.overlaps import Masks

Drop = Literal["before_topk", "after_topk"]


def truth_columns(
    images: pa.Table, objects: pa.Table, category_ids: Sequence[int], rules: Rules
) -> Truth:
    """Truth of the images in ``images``.

    Args:
        images: rows with ``image_id``; for LVIS rules also ``absent_category_ids`` and
            ``not_exhaustive_category_ids``.
        objects: rows of ``truth_instances``; those of other images are left out.
        category_ids: rising; position is the column of a class.

    Raises:
        DataError: an object of another category.
    """
    images = images.sort_by("image_id")
    ids = images["image_id"].to_numpy()
    objects = objects.filter(pa.array(np.isin(objects["image_id"].to_numpy(), ids)))
    image = np.searchsorted(ids, objects["image_id"].to_numpy())
    class_ = places(objects["category_id"].to_numpy(), category_ids)
    if (class_ < 0).any():
        row = int(np.argmin(class_))
        raise DataError(
            f"category {objects['category_id'][row]} is not listed",
            where=f"instance {objects['instance_id'][row]} of the ground truth",
        )
    order = np.lexsort((class_, image))
    objects = objects.take(pa.array(order))
    none = np.zeros(0, dtype=np.int64)
    return Truth(
        rules,
        len(category_ids),
        ids,
        image[order],
        class_[order],
        _boxes(objects),
        objects["area_px"].to_numpy(),
        objects["iscrowd"].to_numpy(),
        np.zeros(len(order), dtype=np.bool_),
        _masks(objects),
        _keys(images["absent_category_ids"], category_ids) if rules.federated else none,
        _keys(images["not_exhaustive_category_ids"], category_ids) if rules.federated else none,
    )


def detection_columns(
    truth: Truth,
    predictions: pa.Table,
    category_ids: Sequence[int],
    class_to_category: Mapping[int, int],
    max_per_image: int | None,
    drop: Drop,
) -> tuple[Detections, int]:
    """Detections that count among rows of ``predictions``.

    Args:
        class_to_category: the category that each class of the segmenter stands for.
        max_per_image: the best so many of an image are taken; None: as the rules say.
        drop: whether detections of other classes leave before they are, or have their share of
            the number.

    Returns:
        the detections, and how many rows were of a class that stands for nothing.
    """
    here = np.isin(predictions["image_id"].to_numpy(), truth.image_ids_I)
    predictions = predictions.filter(pa.array(here))
    classes = np.array(sorted(class_to_category), dtype=np.int64)
    columns = places(np.array([class_to_category[c] for c in classes.tolist()]), category_ids)
    class_ = np.append(columns, -1)[places(predictions["class_index"].to_numpy(), classes)]
    unmapped = int((class_ < 0).sum())
    if drop == "before_topk" and unmapped:
        predictions = predictions.filter(pa.array(class_ >= 0))
        class_ = class_[class_ >= 0]
    size = len(class_)
    found = Detections(
        np.searchsorted(truth.image_ids_I, predictions["image_id"].to_numpy()),
        class_,
        predictions["score"].to_numpy().astype(np.float64),
        _boxes(predictions),
        _masks(predictions),
        {"mask": np.full(size, np.nan), "box": np.full(size, np.nan)},
    )
    limit = truth.rules.max_per_image if max_per_image is None else max_per_image
    return considered(truth, found, limit), unmapped


def _keys(lists: pa.ChunkedArray, category_ids: Sequence[int]) -> Ints:
    """Image position x number of classes + class of every entry, rising."""
    flat = places(pc.list_flatten(lists).to_numpy(), category_ids)  # pyright: ignore[reportAttributeAccessIssue]
    image = pc.list_parent_indices(lists).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
    return np.unique(image[flat >= 0] * len(category_ids) + flat[flat >= 0])


def _boxes(table: pa.Table) -> Floats:
    """(N, 4) x, y, width, height."""
    boxes = matrix(table["bbox_xyxy"]).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _masks(table: pa.Table) -> Masks:
    size = np.stack([table["height_px"].to_numpy(), table["width_px"].to_numpy()], axis=1)
    return Masks(table["mask_rle"].cast(pa.large_string()), size)
