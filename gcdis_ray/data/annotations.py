"""The annotations of a chosen set of images, checked one by one, in an order of their own.

Only annotations on the chosen images (and of the chosen classes) are looked at; whatever else the
file holds, in whatever order, changes nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcdis_ray.artifacts import canonical_json
from gcdis_ray.data.coco import Annotation, parse_annotation, whole_number
from gcdis_ray.data.records import AnnotationSource
from gcdis_ray.data.splits import SourceImage
from gcdis_ray.errors import DataError

_FIELDS = ("id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd")


@dataclass(frozen=True)
class Rejected:
    """An annotation that cannot be used."""

    image_id: int | None  # None: it belongs to no image of its file
    uri: str  # of the image, else of the annotation file
    reason: str


@dataclass(frozen=True)
class CheckedAnnotations:
    by_image: Mapping[int, Sequence[Annotation]]  # image_id -> by rising instance_id
    rejected: Sequence[Rejected]

    @property
    def num_accepted(self) -> int:
        return sum(map(len, self.by_image.values()))

    def check_share(self, max_share: float, where: str) -> None:
        """Raise DataError if more than ``max_share`` of the annotations were rejected."""
        total = self.num_accepted + len(self.rejected)
        if len(self.rejected) > max_share * total:
            shown = "; ".join(f"{r.uri}: {r.reason}" for r in self.rejected[:3])
            raise DataError(
                f"{len(self.rejected)} of {total} annotations cannot be used, such as {shown}",
                where=where,
                fix=f"mend them, or raise stages.ingest.max_quarantined_share (now {max_share:g})",
            )


def annotation_digests(
    file: AnnotationSource, images: Sequence[SourceImage], category_ids: Collection[int] | None
) -> list[str]:
    """One hash per annotation that :func:`read_checked` would look at, sorted."""
    return sorted(digest for _, _, digest in _relevant(file, images, category_ids))


def read_checked(
    file: AnnotationSource, images: Sequence[SourceImage], category_ids: Collection[int] | None
) -> CheckedAnnotations:
    """Annotations on ``images``.

    Args:
        category_ids: take these classes only, others are passed over in silence; None: all.

    Returns:
        accepted and rejected ones; neither depends on the order of the file. Of annotations
        that share an id one is kept.
    """
    if category_ids is None:
        category_ids = {category.category_id for category in file.categories}
    rejected: list[tuple[str, Rejected]] = []
    accepted: list[tuple[int, int, str, SourceImage, Annotation]] = []
    for image, raw, digest in _relevant(file, images, category_ids):
        label = f"annotation {raw.get('id')!r}"[:60]
        if image is None:
            reason = f"{label}: no image with id {raw.get('image_id')!r}"[:200]
            rejected.append((digest, Rejected(None, file.name.rpartition("/")[2], reason)))
            continue
        try:
            height, width = image.height_px, image.width_px
            if height is None or width is None:
                raise DataError("its image has no size")
            annotation = parse_annotation(raw, height, width)
            if annotation.category_id not in category_ids:
                raise DataError(f"no category with id {annotation.category_id}")
        except DataError as error:
            rejected.append((digest, Rejected(image.image_id, image.uri, f"{label}: {error.what}")))
            continue
        accepted.append((annotation.instance_id, image.image_id, digest, image, annotation))
    accepted.sort(key=lambda entry: entry[:3])
    by_image: dict[int, list[Annotation]] = {}
    last = None
    for instance_id, image_id, digest, image, annotation in accepted:
        if instance_id == last:
            reason = f"annotation {instance_id}: its id occurs twice"
            rejected.append((digest, Rejected(image_id, image.uri, reason)))
        else:
            by_image.setdefault(image_id, []).append(annotation)
        last = instance_id
    rejected.sort(key=lambda entry: (entry[1].uri, entry[1].reason, entry[0]))
    return CheckedAnnotations(by_image, [entry for _, entry in rejected])


def _relevant(
    file: AnnotationSource, images: Sequence[SourceImage], category_ids: Collection[int] | None
) -> Iterator[tuple[SourceImage | None, dict[str, Any], str]]:
    """(image, annotation, hash of what it says); image None: its file knows no such image."""
    chosen = {image.file_id: image for image in images}
    listed = {record.image_id for record in file.images()}
    passed_over: set[int] = set()
    if category_ids is not None:
        passed_over = {c.category_id for c in file.categories} - set(category_ids)
    for raw in file.annotations():
        image_id = whole_number(raw.get("image_id"))
        known_image = image_id in listed
        if known_image and (
            image_id not in chosen or whole_number(raw.get("category_id")) in passed_over
        ):
            continue
        content = canonical_json({name: raw.get(name) for name in _FIELDS})
        digest = hashlib.sha256(content.encode()).hexdigest()
        yield (chosen[image_id] if known_image else None), raw, digest
