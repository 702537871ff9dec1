"""Ground truth: what is really there? Sealed, so that only ``evaluate`` may open it.

The other half of :mod:`gcdis_ray.stages.ingest`, read by the same config: the annotations of
unlabeled and validation images, all classes. No image file is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gcdis_ray.artifacts import SCHEMAS, Size, canonical_json
from gcdis_ray.data.annotations import annotation_digests, read_checked
from gcdis_ray.data.splits import DataPlan, plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.stages.ingest import Config, annotation_row

if TYPE_CHECKING:
    from gcdis_ray.artifacts import Artifact
    from gcdis_ray.runtime.base import Work

__all__ = ["SEEDED", "TAKES", "VERSION", "Config", "forecast", "run", "source"]

VERSION = 1
TAKES: tuple[str, ...] = ()
SEEDED = False


def source(config: Config) -> str:
    """Fingerprint of the annotations of unlabeled and validation images, and of all categories."""
    plan = plan_data(config)
    content: dict[str, Any] = {
        "known": [[c.category_id, c.name] for c in plan.known],
        "categories": _categories(plan),
    }
    for split in _annotated(plan):
        content[split] = {
            "images": [[i.image_id, i.height_px, i.width_px] for i in plan.images[split]],
            "annotations": annotation_digests(plan.files[split], plan.images[split], None),
        }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Some five objects an image."""
    images = plan_data(config).images
    rows = 5 * sum(len(images[split]) for split in images if split != "labeled")
    return Size(rows, 170 * rows)


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    plan = plan_data(config)
    class_of = {c.category_id: index for index, c in enumerate(plan.known)}
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for split in _annotated(plan):
        truth = read_checked(plan.files[split], plan.images[split], None)
        truth.check_share(config.max_quarantined_share, f"stages.ingest.{split}.annotations")
        work.count("annotations_quarantined", len(truth.rejected))
        if not truth.by_image:
            continue  # nothing is told about these images: unknown truth, not empty truth
        for image in plan.images[split]:
            row = {
                "image_id": image.image_id,
                "split": split,
                "height_px": image.height_px,
                "width_px": image.width_px,
            }
            images.append(row)
            instances += [
                {**annotation_row(annotation, row, class_of), "split": split}
                for annotation in truth.by_image.get(image.image_id, ())
            ]
    work.write_table("truth_images", pa.Table.from_pylist(images, SCHEMAS["truth_images"]))
    work.write_table("truth_instances", pa.Table.from_pylist(instances, SCHEMAS["truth_instances"]))
    work.write_json(
        "categories",
        [
            {
                "category_id": category_id,
                "name": name,
                "known": category_id in class_of,
                "class_index": class_of.get(category_id, -1),
            }
            for category_id, name in _categories(plan)
        ],
    )


def _annotated(plan: DataPlan) -> list[str]:
    """The sets whose annotation files can hold truth."""
    return [
        split
        for split in ("unlabeled", "validation")
        if split in plan.files and plan.files[split].has_annotations
    ]


def _categories(plan: DataPlan) -> list[tuple[int, str]]:
    """(category_id, name) over all files, by rising id.

    Raises:
        DataError: two files name one id differently.
    """
    names: dict[int, str] = {c.category_id: c.name for c in plan.known}
    for split in ("labeled", *_annotated(plan)):
        for category in plan.files[split].categories:
            if names.setdefault(category.category_id, category.name) != category.name:
                raise DataError(
                    f"category {category.category_id} is {names[category.category_id]!r} and "
                    f"{category.name!r}",
                    where=f"stages.ingest.{split}.annotations",
                    fix="number the categories alike in all files",
                )
    return sorted(names.items())
