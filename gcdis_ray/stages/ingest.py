"""Ingest: what images and labels do we have?

Reads the sets of images and the labels of known objects on labeled images, checks every one and
stores them as tables. Whatever the annotation files say about unlabeled or validation images, or
about novel classes, is neither read into a table nor part of the fingerprint: see ``ground_truth``.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gcdis_ray.data.images.image_check import ImageLimits
from gcdis_ray.data.images.image_reading import SEE_EXIF, Exif, ImageReader
from gcdis_ray.data.sets.annotations import CheckedAnnotations
from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.fingerprints import (
    annotations_digest,
    bytes_read,
    images_digest,
    states_digest,
)
from gcdis_ray.data.sets.image_list import ImageList
from gcdis_ray.data.sets.known_classes import without_object
from gcdis_ray.data.sets.splits import DataPlan, plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.masks.run_lengths import run_areas
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.store.artifacts import Size, Workload, canonical_json
from gcdis_ray.store.members import document, table
from gcdis_ray.store.schemas import IMAGE_INDEX, IMAGES, INSTANCES, QUARANTINE, schema
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.training.plan import Show

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView
    from gcdis_ray.runtime.base import Work
    from gcdis_ray.store.artifacts import Table
    from gcdis_ray.store.members import Inputs


ID = "ingest"
VERSION = 4
_EXAMPLES = 3
_SAMPLE = 1000  # files whose sizes stand for all
LISTING = schema(  # images to read; laid aside while the stage runs
    image_id=pa.int64(),
    uri=pa.string(),
    height_px=(pa.int32(), "null"),  # of the annotation file
    width_px=(pa.int32(), "null"),
    split=pa.string(),
)

TAKES: tuple[str, ...] = ()
GIVES = (
    table("images", IMAGES),
    table("image_index", IMAGE_INDEX),
    table("instances", INSTANCES),
    table("quarantine", QUARANTINE),
    document("classes"),
    document("source", optional=True),
)
SEEDED = False


class Config(DataConfig):
    """Where the data is and what of it to take."""

    images_per_shard: int = Field(32, ge=1, le=1024, description="images a worker reads at a time")
    store: Literal["bytes", "uri"] = Field(
        "bytes",
        description="keep copies of the image files in the storage, or only where they are: the "
        "data folder must then stay as it is, and be reachable by every worker",
    )
    fingerprint: Literal["content", "stat"] = Field(
        "content",
        description="how changed files are noticed: by what they say, or by size and time of "
        "change, for sets too large to read on every command (then any change of an annotation "
        "file counts)",
    )
    max_image_bytes: int = Field(
        64_000_000, ge=1, le=1_000_000_000, description="larger files are quarantined"
    )
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=89_000_000, description="larger images are quarantined"
    )
    exif: Exif = Field(
        "apply",
        description="turns that cameras note in image files. apply: all see the picture as a "
        "viewer shows it; an image that then is not of the size that its annotation file lists is "
        "quarantined. refuse: so is every turned one. ignore: pixels as stored",
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return super().not_in_key() | {"fingerprint"}


def source(config: Config, show: Show = lambda progress: None) -> str:
    """Fingerprint of all that this stage reads: image lists, image files, known labels.

    Args:
        show: is told how far it is.

    Raises:
        DataError: as :func:`gcdis_ray.data.sets.splits.plan_data`; or no image of a set exists.
    """
    if config.fingerprint == "stat":
        found = states_digest(config, config.splits)
        return f"{found} {_place(config, config.open_root())}" if config.store == "uri" else found
    plan = plan_data(config)
    found = hashlib.sha256()
    for split in plan.sets:
        found.update(images_digest(plan, split, show).encode())
    known = {c.category_id: c.name for c in plan.known}
    labels = annotations_digest(plan, "labeled", known, show)
    found.update(canonical_json({"known": sorted(known.items()), "labels": labels}).encode())
    if config.store == "uri":
        found.update(_place(config, plan.folder).encode())
    return found.hexdigest()


def _place(config: Config, folder: SourceFolder) -> str:
    """Where later stages look for image files that stay there."""
    return f"{folder.uri} at {config.endpoint}" if config.endpoint else folder.uri


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """All images, with the bytes of their files as those of a sample promise."""
    plan = plan_data(config)
    rows, num_bytes = 0, 0
    for images in plan.images.values():
        rows += len(images)
        sample = range(0, len(images), max(1, len(images) // _SAMPLE))
        states = [plan.folder.state(images[row].uri) for row in sample]
        sizes = [state.num_bytes for state in states if state]
        num_bytes += round(len(images) * sum(sizes) / len(sample))
    # each file to see what it holds, and again for its images, categories and labels
    read = num_bytes + 2 * annotation_bytes(plan, config.files())
    splits = {split: len(images) for split, images in plan.images.items()}
    stored = num_bytes if config.store == "bytes" else 150 * rows
    return Size(rows, stored, read, splits=splits)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """All images are read and checked."""
    return Workload(rows=made.rows)


def annotation_bytes(plan: DataPlan, names: Iterable[str]) -> int:
    """Of these files, each as often as it is named."""
    states = (plan.folder.state(name) for name in names)
    return sum(state.num_bytes for state in states if state)


def sections(view: RunView) -> Sequence[Section]:
    """What came in, what of it was set aside, and the labels in their images."""
    from gcdis_ray.report.run_pictures import labeled_pictures
    from gcdis_ray.report.set_aside import set_aside_section

    return [set_aside_section(view), *labeled_pictures(view)]


def run(inputs: Inputs, config: Config, work: Work) -> None:
    plan = plan_data(config)
    if config.fingerprint == "stat":  # otherwise the fingerprint has looked
        plan.check_present()
    class_of = {c.category_id: index for index, c in enumerate(plan.known)}
    labels = read_annotations(plan, "labeled", class_of, work)
    labels.check_share(config.max_quarantined_share, "stages.ingest.labeled.annotations")
    tables = read_images(plan, config, work, labels, class_of)
    _check_classes(plan, tables["instances"])
    work.write_json(
        "classes",
        [
            {"class_index": index, "category_id": c.category_id, "name": c.name}
            for index, c in enumerate(plan.known)
        ],
    )


def read_images(
    plan: DataPlan,
    config: Config,
    work: Work,
    labels: CheckedAnnotations | None = None,
    class_of: Mapping[int, int] | None = None,
) -> dict[str, Table]:
    """Write all images and what is told of them, and where they stay in the source JSON ``source``.

    Args:
        labels: of the labeled set, if there is one.
        class_of: category_id of a known class -> class_index.

    Raises:
        DataError: too many images cannot be used.
    """
    work.count("images_missing", sum(chosen.num_missing for chosen in plan.sets.values()))
    for kind, number in plan.left_out().items():
        work.count(f"files_left_out: {kind}", number)

    shards = list(plan.shards(config.images_per_shard))
    tables = work.map_shards(
        IngestShard(
            plan.folder,
            ImageLimits(config.max_image_bytes, config.max_image_pixels),
            config.store,
            config.exif,
        ),
        _lay_aside(plan, shards, labels, class_of or {}, work),
        gives=("images", "image_index", "instances", "quarantine"),
        unit="image shards",
    )
    _check_images(plan, tables, config)
    work.count(
        "images_quarantined", sum(map(len, plan.images.values())) - tables["images"].num_rows
    )
    if config.store == "uri":
        work.write_json("source", {"uri": plan.folder.uri, "endpoint": config.endpoint})
    return tables


def read_annotations(
    plan: DataPlan, split: str, category_ids: Collection[int] | None, work: Work
) -> CheckedAnnotations:
    """The annotations of a set, checked, with progress and counts."""
    selection = plan.sets[split].selection(category_ids)
    with bytes_read(plan, split, lambda p: work.progress(p.done, p.total, p.unit)) as told:
        found = CheckedAnnotations(selection, work.spool, told)
    work.count("annotations_quarantined", found.num_rejected)
    for reason, times in found.passed_over.items():
        work.count(f"annotations_passed_over: {reason}", times)
    for reason, times in found.mask_faults.items():
        work.count(f"boxes_only: {reason}", times)
    return found


def _lay_aside(
    plan: DataPlan,
    shards: Sequence[tuple[str, int, int]],
    labels: CheckedAnnotations | None,
    class_of: Mapping[int, int],
    work: Work,
) -> list[Table]:
    """What workers have to know of every shard: images, instances, annotations turned down."""
    laid = {"listing": LISTING, "instances": INSTANCES, "quarantine": QUARANTINE}
    spools = [work.spool(name, columns) for name, columns in laid.items()]
    ends = [end for split, _, end in shards if split == "labeled"]
    parts = labels.parts(ends) if labels else iter(())
    nothing = [INSTANCES.empty_table(), QUARANTINE.empty_table()]
    for split, start, end in shards:
        listed = plan.images[split].table.slice(start, end - start).drop_columns(["file_id"])
        tables = [listed.append_column("split", pa.array([split] * (end - start))), *nothing]
        if split == "labeled" and labels:
            rows, rejected = next(parts)
            objects = instance_rows(rows, plan.images[split], class_of)
            if labels.mask_faults:
                objects = _without_empty_masks(objects)
            tables[1:] = objects, plan.quarantine(split, rejected)
        for spool, rows in zip(spools, tables, strict=True):
            spool.add(rows)
    return [spool.close() for spool in spools]


def _without_empty_masks(instances: pa.Table) -> pa.Table:
    """Nothing can be learned from a mask that covers no pixel: such an object has its box."""
    place = instances.column_names.index("mask_rle")
    masks = instances["mask_rle"].combine_chunks()
    size = instances["height_px"].to_numpy().astype(np.int64) * instances["width_px"].to_numpy()
    masked = masks.is_valid().to_numpy(zero_copy_only=False)
    keep = masked.copy()
    keep[masked] = run_areas(masks.drop_null(), size[masked]) > 0
    if (keep == masked).all():
        return instances
    shown = pc.if_else(pa.array(keep), masks, pa.nulls(len(masks), pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
    return instances.set_column(place, INSTANCES.field(place), shown)


def _check_images(plan: DataPlan, tables: Mapping[str, Table], config: Config) -> None:
    """Stop if too many images were quarantined."""
    bad: dict[str, int] = dict.fromkeys(plan.sets, 0)
    shown: dict[str, list[str]] = {split: [] for split in plan.sets}
    for shard in tables["quarantine"].iter_shards():
        for row in shard.to_pylist():
            if not row["reason"].startswith("annotation "):
                bad[row["split"]] += 1
                if len(shown[row["split"]]) < _EXAMPLES:
                    shown[row["split"]].append(f"{row['uri']}: {row['reason']}")
    for split in plan.sets:
        total = len(plan.images[split])
        if bad[split] > config.max_quarantined_share * total or bad[split] == total:
            raise DataError(
                f"{bad[split]} of {total} images cannot be used, such as "
                f"{'; '.join(shown[split])[:300]}",
                where=f"stages.ingest.{split}.images",
                fix=_way_on("; ".join(shown[split]), config),
            )


def _way_on(reasons: str, config: Config) -> str:
    if SEE_EXIF in reasons and config.exif == "apply":
        return (
            "set stages.ingest.exif: ignore if annotations are in pixels as stored, or list the "
            "sizes of turned pictures"
        )
    if SEE_EXIF in reasons:
        return "set stages.ingest.exif: apply, since annotations are in turned pictures"
    share = f"stages.ingest.max_quarantined_share (now {config.max_quarantined_share:g})"
    return f"mend them, or raise {share}"


def _check_classes(plan: DataPlan, instances: Table) -> None:
    """Stop if a known class has no object: nothing could be learned about it."""
    seen = np.zeros(len(plan.known), dtype=np.bool_)
    for shard in instances.iter_shards(["class_index", "iscrowd"]):
        single = ~shard["iscrowd"].to_numpy()
        seen[shard["class_index"].to_numpy()[single]] = True
    absent = [c.name for c, found in zip(plan.known, seen.tolist(), strict=True) if not found]
    if absent:
        raise without_object(absent, len(plan.known))


@dataclass(frozen=True)
class IngestShard:
    """Reads and checks a shard's image files. Implements ShardTask."""

    folder: SourceFolder
    limits: ImageLimits
    store: Literal["bytes", "uri"]
    exif: Exif

    def open(self, device: str) -> Callable[..., ShardOutput]:
        return self.read

    def read(
        self, index: int, listing: pa.Table, instances: pa.Table, quarantine: pa.Table
    ) -> ShardOutput:
        """Args:
        listing: images to read.
        instances: their checked annotations.
        quarantine: their annotations that were turned down before.
        """
        rows: list[dict[str, Any]] = []
        turned_down: list[dict[str, Any]] = []
        counts = Counter[str]()
        reader = ImageReader(self.folder, self.limits, self.store, self.exif)
        for image in listing.to_pylist():
            try:
                rows.append(reader.read(image, counts))
            except DataError as error:
                turned_down.append(
                    {"split": image["split"], "uri": image["uri"], "reason": error.what}
                )
        images = pa.Table.from_pylist(rows, IMAGES)
        kept = pc.is_in(instances["image_id"], images["image_id"].combine_chunks())  # pyright: ignore[reportAttributeAccessIssue]
        bad = pa.Table.from_pylist(turned_down, QUARANTINE)
        tables = {
            "images": images,
            "image_index": images.select(IMAGE_INDEX.names),
            "instances": with_sizes(instances.filter(kept), images),
            "quarantine": pa.concat_tables([quarantine, bad]),
        }
        return ShardOutput(tables, counts)


def with_sizes(objects: pa.Table, images: pa.Table) -> pa.Table:
    """Objects with the size of their image where only its file tells that: each is a whole image.
    Others stay as they are.

    Args:
        objects: rows of ``instances`` or with its columns.
        images: rows of ``image_index`` or with its columns. Objects of images that are not among
            them, as those that could not be read, are left out if they have no size.
    """
    unsized = objects["height_px"].to_numpy() < 0
    if not unsized.any():
        return objects
    names = ("image_id", "height_px", "width_px")
    columns = zip(*(images[name].to_pylist() for name in names), strict=True)
    size_of = {image_id: size for image_id, *size in columns}
    rows = []
    for row, bare in zip(objects.to_pylist(), unsized.tolist(), strict=True):
        if bare:
            if row["image_id"] not in size_of:
                continue
            height, width = size_of[row["image_id"]]
            place = dict(bbox_xyxy=[0, 0, width, height], area_px=height * width)
            row |= {"height_px": height, "width_px": width, **place}
        rows.append(row)
    return pa.Table.from_pylist(rows, objects.schema)


def instance_rows(rows: pa.Table, images: ImageList, class_of: Mapping[int, int]) -> pa.Table:
    """Rows of ``instances`` from those of ``annotation_runs``. Where only the image file tells its
    size, ``height_px`` and ``width_px`` are -1: see :func:`with_sizes`.

    Args:
        images: what ``image_row`` counts.
        class_of: category_id of a known class -> class_index.
    """
    place = rows["image_row"].to_numpy()
    height, width = images.size_px_N2[place].T
    categories = rows["category_id"].to_numpy()
    classes = np.array([class_of.get(c, -1) for c in categories.tolist()], dtype=np.int32)
    columns = {
        **{name: rows[name] for name in INSTANCES.names if name in rows.column_names},
        "image_id": images.image_id_N[place],
        "class_index": classes,
        "height_px": height,
        "width_px": width,
    }
    return pa.table([columns[name] for name in INSTANCES.names], INSTANCES)
