"""Ground truth: what is really there? Sealed: only stages that evaluate may open it.

The other half of :mod:`gcdis_ray.stages.ingest`, read by the same config: the annotations of
unlabeled and validation images, all classes. No image file is read: what ingest has found tells the
sizes of images in class folders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gcdis_ray.data.formats.records import CategoryRecord
from gcdis_ray.data.sets.annotations import CheckedAnnotations
from gcdis_ray.data.sets.fingerprints import annotations_digest, states_digest
from gcdis_ray.data.sets.splits import DataPlan, federated_lists, plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.stages.ingest import (
    Config,
    annotation_bytes,
    instance_rows,
    read_annotations,
    with_sizes,
)
from gcdis_ray.store.artifacts import Size, Workload, canonical_json
from gcdis_ray.store.members import document, optional, table
from gcdis_ray.store.schemas import TRUTH_IMAGES, TRUTH_INSTANCES
from gcdis_ray.training.plan import Show

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work
    from gcdis_ray.store.members import Inputs

__all__ = ["GIVES", "ID", "SEEDED", "TAKES", "VERSION", "Config", "forecast", "run", "source"]

ID = "ground_truth"
VERSION = 4
TAKES = (optional("image_index"),)
GIVES = (
    table("truth_images", TRUTH_IMAGES, sealed=True),
    table("truth_instances", TRUTH_INSTANCES, sealed=True),
    document("categories", sealed=True),
)
SEEDED = False


def source(config: Config, show: Show = lambda progress: None) -> str:
    """Fingerprint of the annotations of unlabeled and validation images, and of all categories."""
    if config.fingerprint == "stat":
        return states_digest(config, [])
    plan = plan_data(config)
    content: dict[str, Any] = {
        "known": [[c.category_id, c.name] for c in plan.known],
        "categories": [[c.category_id, c.name, c.frequency] for c in categories(plan)],
    }
    for split in _annotated(plan):
        images = hashlib.sha256()
        lists = federated_lists(plan.sets[split])
        for image, *told in zip(plan.images[split], *_values(lists), strict=True):
            row = [image.image_id, image.height_px, image.width_px, *told]
            images.update(canonical_json(row).encode())
        content[split] = [images.hexdigest(), annotations_digest(plan, split, None, show)]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Some five objects an image."""
    plan = plan_data(config)
    rows = 5 * sum(len(images) for split, images in plan.images.items() if split != "labeled")
    sets = [plan.sets[split] for split in _annotated(plan)]  # each reads its files on its own
    names = [name for chosen in sets for name in chosen.config.annotation_files]
    return Size(rows, 170 * rows, 170 * rows + annotation_bytes(plan, names))


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """All objects."""
    return Workload(rows=made.rows)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write the tables in the shards of ``images``, so that whoever may open them can do so shard
    by shard; those of labeled images are empty."""
    plan = plan_data(config)
    class_of = {c.category_id: index for index, c in enumerate(plan.known)}
    write_truth(plan, class_of, inputs, config, work)


def write_truth(
    plan: DataPlan, class_of: Mapping[int, int], inputs: Inputs, config: Config, work: Work
) -> None:
    """Args: class_of: category_id of a known class -> class_index."""
    shards = list(plan.shards(config.images_per_shard))
    truth_images, truth_instances = work.writer("truth_images"), work.writer("truth_instances")
    for split in plan.sets:
        mine = [(n, *rows) for n, (of_split, *rows) in enumerate(shards) if of_split == split]
        truth = _truth(plan, split, config, work)
        if truth is None:
            for _ in mine:
                truth_images.add(TRUTH_IMAGES.empty_table())
                truth_instances.add(TRUTH_INSTANCES.empty_table())
            continue
        lists = federated_lists(plan.sets[split])
        parts = truth.parts([end for _, _, end in mine])
        for (shard, start, end), (rows, _) in zip(mine, parts, strict=True):
            images = plan.images[split].table.slice(start, end - start)
            if plan.sets[split].config.has_class_folders:  # those that could be read, with sizes
                images = inputs.table("image_index").shard(shard)
            num = images.num_rows
            told = {
                "image_id": images["image_id"],
                "split": pa.array([split] * num),
                "height_px": images["height_px"],
                "width_px": images["width_px"],
                **{name: lists[name].slice(start, num) for name in lists.column_names},
            }
            names = TRUTH_IMAGES.names
            truth_images.add(pa.table([told[n] for n in names], TRUTH_IMAGES))
            found = with_sizes(instance_rows(rows, plan.images[split], class_of), images)
            truth_instances.add(found.append_column("split", pa.array([split] * found.num_rows)))
    truth_images.close()
    truth_instances.close()
    work.write_json(
        "categories",
        [
            {
                "category_id": category.category_id,
                "name": category.name,
                "known": category.category_id in class_of,
                "class_index": class_of.get(category.category_id, -1),
                "frequency": category.frequency,
            }
            for category in categories(plan)
        ],
    )


def _truth(plan: DataPlan, split: str, config: Config, work: Work) -> CheckedAnnotations | None:
    """None where nothing is told about the images: unknown truth, not empty truth."""
    if split not in _annotated(plan):
        return None
    truth = read_annotations(plan, split, None, work)
    truth.check_share(config.max_quarantined_share, f"stages.ingest.{split}.annotations")
    return truth if truth.num_accepted else None


def _values(table: pa.Table) -> Iterator[Iterator[Any]]:
    return ((value.as_py() for value in column) for column in table.columns)


def _annotated(plan: DataPlan) -> list[str]:
    """The sets whose annotations can hold truth."""
    sources = {split: chosen.source for split, chosen in plan.sets.items() if split != "labeled"}
    return [split for split, source in sources.items() if source and source.has_annotations]


def categories(plan: DataPlan) -> list[CategoryRecord]:
    """Classes of all files, by rising id.

    Raises:
        DataError: two files name one id differently.
    """
    found = {c.category_id: c for c in plan.known}
    for split in ("labeled", *_annotated(plan)):
        source = plan.sets[split].source if split in plan.sets else None
        for category in source.categories if source else ():
            known = found.setdefault(category.category_id, category)
            if known.name != category.name:
                raise DataError(
                    f"category {category.category_id} is {known.name!r} and {category.name!r}",
                    where=f"stages.ingest.{split}.annotations",
                    fix="number the categories alike in all files",
                )
            if known.frequency is None and category.frequency is not None:
                found[category.category_id] = category
    return [found[category_id] for category_id in sorted(found)]
