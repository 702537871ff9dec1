"""Ingest: what images and labels do we have?

Reads three sets of images and the labels of known objects on labeled images, checks every one and
stores them as tables. Whatever the annotation files say about unlabeled or validation images, or
about novel classes, is neither read into a table nor part of the fingerprint: see ``ground_truth``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from gcdis_ray.artifacts import SCHEMAS, Size, canonical_json
from gcdis_ray.data.annotations import Rejected, annotation_digests, read_checked
from gcdis_ray.data.coco import Annotation
from gcdis_ray.data.data_config import SPLITS, DataConfig
from gcdis_ray.data.images import ImageLimits, check_image
from gcdis_ray.data.splits import DataPlan, SourceImage, plan_data
from gcdis_ray.errors import DataError

if TYPE_CHECKING:
    from gcdis_ray.artifacts import Artifact, Table
    from gcdis_ray.runtime.base import Work

VERSION = 1
TAKES: tuple[str, ...] = ()
SEEDED = False


class Config(DataConfig):
    """Where the data is and what of it to take."""

    images_per_shard: int = Field(32, ge=1, le=1024, description="images a worker reads at a time")
    fingerprint: Literal["content", "stat"] = Field(
        "content",
        description="how changed image files are noticed: by their bytes, or by size and time of "
        "change, for sets too large to read on every command",
    )
    max_image_bytes: int = Field(
        64_000_000, ge=1, le=1_000_000_000, description="larger files are quarantined"
    )
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=89_000_000, description="larger images are quarantined"
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return super().not_in_key() | {"fingerprint"}


def source(config: Config) -> str:
    """Fingerprint of all that this stage reads: image lists, image files, known labels.

    Raises:
        DataError: as :func:`gcdis_ray.data.splits.plan_data`; or no image of a set exists.
    """
    plan = plan_data(config)
    content: dict[str, Any] = {"known": [[c.category_id, c.name] for c in plan.known]}
    for split in SPLITS:
        content[split] = [
            [i.image_id, i.uri, i.height_px, i.width_px, _file_digest(plan.root / i.uri, config)]
            for i in plan.images[split]
        ]
        if all(entry[-1] is None for entry in content[split]):
            raise DataError(
                f"none of its {len(content[split])} images exists, such as {content[split][0][1]}",
                where=f"stages.ingest.{split}.images",
                fix=f"check root ({plan.root}) and images",
            )
    content["labels"] = annotation_digests(
        plan.files["labeled"], plan.images["labeled"], {c.category_id for c in plan.known}
    )
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """All images, with the bytes of their files."""
    plan = plan_data(config)
    images = [image for split in plan.images.values() for image in split]
    paths = [plan.root / image.uri for image in images]
    return Size(len(images), sum(path.stat().st_size for path in paths if path.is_file()))


def _file_digest(path: Path, config: Config) -> str | None:
    """None if it cannot be read: such an image is quarantined later."""
    try:
        if not path.is_file():
            return None
        if config.fingerprint == "stat":
            status = path.stat()
            return f"{status.st_size}:{status.st_mtime_ns}"
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    plan = plan_data(config)
    class_of = {c.category_id: index for index, c in enumerate(plan.known)}
    labels = read_checked(plan.files["labeled"], plan.images["labeled"], class_of)
    labels.check_share(config.max_quarantined_share, "stages.ingest.labeled.annotations")
    work.count("annotations_quarantined", len(labels.rejected))

    rejected: dict[int | None, list[Rejected]] = {}
    for entry in labels.rejected:
        rejected.setdefault(entry.image_id, []).append(entry)
    args: list[dict[str, Any]] = []
    for split in SPLITS:
        images = plan.images[split]
        for start in range(0, len(images), config.images_per_shard):
            chunk = images[start : start + config.images_per_shard]
            told = [image.image_id for image in chunk] if split == "labeled" else []
            turned_down = [entry for image_id in told for entry in rejected.get(image_id, ())]
            if not args:  # what belongs to no image goes to the first shard
                turned_down += rejected.get(None, ())
            args.append(
                {
                    "split": split,
                    "images": chunk,
                    "annotations": {i: labels.by_image[i] for i in told if i in labels.by_image},
                    "rejected": turned_down,
                }
            )
    limits = ImageLimits(config.max_image_bytes, config.max_image_pixels)
    tables = work.map_shards(
        IngestShard(str(plan.root), limits, class_of),
        [],
        gives=("images", "instances", "quarantine"),
        args=args,
        unit="image shards",
    )
    _check_images(plan, tables, config)
    work.count(
        "images_quarantined", sum(map(len, plan.images.values())) - tables["images"].num_rows
    )
    _check_classes(plan, tables["instances"])
    work.write_json(
        "classes",
        [
            {"class_index": index, "category_id": c.category_id, "name": c.name}
            for index, c in enumerate(plan.known)
        ],
    )


def _check_images(plan: DataPlan, tables: Mapping[str, Table], config: Config) -> None:
    """Stop if too many images were quarantined."""
    kept: dict[str, int] = dict.fromkeys(SPLITS, 0)
    for shard in tables["images"].iter_shards(["split"]):
        for split in shard["split"].to_pylist():
            kept[split] += 1
    for split in SPLITS:
        total = len(plan.images[split])
        bad = total - kept[split]
        if bad > config.max_quarantined_share * total or not kept[split]:
            rows = tables["quarantine"].read().to_pylist()
            images = {image.uri for image in plan.images[split]}
            shown = "; ".join(
                f"{row['uri']}: {row['reason']}"
                for row in rows
                if row["uri"] in images and not row["reason"].startswith("annotation ")
            )
            raise DataError(
                f"{bad} of {total} images cannot be used, such as {shown[:300]}",
                where=f"stages.ingest.{split}.images",
                fix="mend them, or raise stages.ingest.max_quarantined_share "
                f"(now {config.max_quarantined_share:g})",
            )


def _check_classes(plan: DataPlan, instances: Table) -> None:
    """Stop if a known class has no object: nothing could be learned about it."""
    seen: set[int] = set()
    for shard in instances.iter_shards(["class_index", "iscrowd"]):
        pairs = zip(shard["class_index"].to_pylist(), shard["iscrowd"].to_pylist(), strict=True)
        seen.update(class_index for class_index, iscrowd in pairs if not iscrowd)
    absent = [c.name for index, c in enumerate(plan.known) if index not in seen]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(plan.known)} known classes have no object on the labeled "
            f"images: {absent[:5]}",
            where="stages.ingest.known_classes",
            fix="take them out, or choose labeled images that show them",
        )


@dataclass(frozen=True)
class IngestShard:
    """Reads and checks a shard's image files. Implements ShardTask."""

    root: str
    limits: ImageLimits
    class_of: Mapping[int, int]  # category_id -> class_index

    def open(self) -> Callable[..., dict[str, pa.Table]]:
        return self.read

    def read(
        self,
        index: int,
        *,
        split: str,
        images: Sequence[SourceImage],
        annotations: Mapping[int, Sequence[Annotation]],
        rejected: Sequence[Rejected],
    ) -> dict[str, pa.Table]:
        """Args:
        annotations: image_id -> its checked annotations; empty but for labeled images.
        rejected: annotations of these images that were turned down before.
        """
        rows: list[dict[str, Any]] = []
        instances: list[dict[str, Any]] = []
        quarantine = [{"split": split, "uri": r.uri, "reason": r.reason} for r in rejected]
        for image in images:
            try:
                row = self._read_image(image)
            except DataError as error:
                quarantine.append({"split": split, "uri": image.uri, "reason": error.what})
                continue
            rows.append({**row, "split": split})
            instances += [
                annotation_row(annotation, row, self.class_of)
                for annotation in annotations.get(image.image_id, ())
            ]
        return {
            "images": pa.Table.from_pylist(rows, SCHEMAS["images"]),
            "instances": pa.Table.from_pylist(instances, SCHEMAS["instances"]),
            "quarantine": pa.Table.from_pylist(quarantine, SCHEMAS["quarantine"]),
        }

    def _read_image(self, image: SourceImage) -> dict[str, Any]:
        path = Path(self.root) / image.uri
        try:
            if not path.is_file():
                raise DataError("file is missing")
            if (size := path.stat().st_size) > self.limits.max_bytes:
                raise DataError(f"{size} bytes, at most {self.limits.max_bytes} are allowed")
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from None
        height, width = check_image(data, self.limits)
        if image.height_px is not None and (height, width) != (image.height_px, image.width_px):
            raise DataError(
                f"{height} x {width} pixels (height x width), the annotation file says "
                f"{image.height_px} x {image.width_px}"
            )
        return {
            "image_id": image.image_id,
            "uri": image.uri,
            "bytes": data,
            "height_px": height,
            "width_px": width,
            "sha256": hashlib.sha256(data).hexdigest(),
        }


def annotation_row(
    annotation: Annotation, image: Mapping[str, Any], class_of: Mapping[int, int]
) -> dict[str, Any]:
    """A row of ``instances``.

    Args:
        image: at least ``image_id``, ``height_px`` and ``width_px``.
        class_of: category_id of a known class -> class_index.
    """
    return {
        "instance_id": annotation.instance_id,
        "image_id": image["image_id"],
        "category_id": annotation.category_id,
        "class_index": class_of.get(annotation.category_id, -1),
        "bbox_xyxy": annotation.bbox_xyxy,
        "mask_rle": annotation.mask_rle,
        "height_px": image["height_px"],
        "width_px": image["width_px"],
        "area_px": annotation.area_px,
        "iscrowd": annotation.iscrowd,
    }
