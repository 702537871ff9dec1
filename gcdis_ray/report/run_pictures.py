"""The pictures of one run: the labels given, proposals, or predictions beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from gcdis_ray.data.images.image_files import FILE_COLUMNS, ImageFiles, listed_images
from gcdis_ray.errors import DataError, StorageError
from gcdis_ray.masks.instance_masks import with_made_masks
from gcdis_ray.report.html import fill
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.pictures import (
    Drawn,
    Picture,
    choose_images,
    describe,
    display_threshold,
    draw_image,
    drawn_predictions,
    rows_of_image,
    suppress_overlaps,
)
from gcdis_ray.report.section import IMAGES, Section
from gcdis_ray.report.view import RunView
from gcdis_ray.store.artifacts import Table

_NUM_IMAGES = 6
_FALLBACK_PER_IMAGE = 8.0  # objects to show per image where the truth does not say how many
_UNCLAIMED = "#9aa3ad"  # a true class that no discovered class stands for


@dataclass(frozen=True)
class PictureSection:
    """Pictures of one kind with what to say about them."""

    found_title: str
    truth_title: str | None
    caption: str
    pictures: list[Picture]


@dataclass(frozen=True)
class OpenImage:
    """One image with its pixels, and the shard that it lies in."""

    image_id: int
    shard: int
    height_px: int
    width_px: int
    pixels_HW3: NDArray[np.uint8]


def labeled_pictures(view: RunView) -> list[Section]:
    """The labels given, on labeled images."""
    images, instances = view.table("images"), view.table("instances")
    if images is None or instances is None:
        return []
    return [_section(lambda: _labeled(view, images, instances))]


def proposed_pictures(view: RunView) -> list[Section]:
    """Proposals, on unlabeled images if there are any."""
    images, proposals = view.table("images"), view.table("proposals")
    if images is None or proposals is None:
        return []
    return [_section(lambda: _proposed(view, images, proposals))]


def predicted_pictures(view: RunView, metrics: Mapping[str, Any] | None = None) -> list[Section]:
    """Predictions, on validation images if there are any, and the truth where it is known.

    Args:
        metrics: of an evaluation, which knows what class stands for which true one.
    """
    if view.table("predictions") is None:
        return []
    return [_section(lambda: draw_predictions(view, metrics))]


def _section(draw: Callable[[], PictureSection | None]) -> Section:
    def body() -> Markup:
        pictures = draw()
        return fill("pictures", pictures=pictures) if pictures and pictures.pictures else Markup("")

    return Section("pictures", "Images", body, IMAGES, heading="In the images")


def draw_predictions(
    view: RunView, metrics: Mapping[str, Any] | None = None
) -> PictureSection | None:
    """The pictures of :func:`predicted_pictures`, or None without images or predictions."""
    images, predictions = view.table("images"), view.table("predictions")
    if images is None or predictions is None:
        return None
    chosen = list(open_images(view, images, ("validation", "unlabeled")))
    truth = _truth_by_image(view, metrics or {}, {image.image_id for image in chosen})
    rows = {i.image_id: rows_of_image(predictions.shard(i.shard), i.image_id) for i in chosen}
    scores = [rows[i.image_id]["score"].to_numpy() for i in chosen]
    num_true = sum(map(len, truth.values())) if truth is not None else None
    wanted = num_true if num_true is not None else _FALLBACK_PER_IMAGE * len(chosen)
    threshold = display_threshold(np.concatenate(scores or [np.zeros(0)]), wanted)
    by_index = {c.class_index: c for c in view.classes()}
    pictures = []
    for image in chosen:
        table = rows[image.image_id]
        size = (image.height_px, image.width_px)
        found = drawn_predictions(table, threshold, size, by_index.get)
        true = truth.get(image.image_id, []) if truth is not None else None
        pictures.append(_picture(image, found, "objects found", true))
    caption = (
        f"Images are spread evenly over the split, not picked. Drawn are predictions with a score "
        f"of at least {threshold:.2f}, after removing those that overlap a surer one by half; "
        f"every number on this page is computed from all predictions."
    )
    return PictureSection("found", "truth" if truth is not None else None, caption, pictures)


def _proposed(view: RunView, images: Table, proposals: Table) -> PictureSection:
    chosen = list(open_images(view, images, ("unlabeled", "validation", "labeled")))
    rows = {i.image_id: rows_of_image(proposals.shard(i.shard), i.image_id) for i in chosen}
    pictures = []
    for image in chosen:
        columns = rows[image.image_id].to_pydict()
        kept = suppress_overlaps(
            columns["mask_rle"], np.asarray(columns["objectness"]), image.height_px, image.width_px
        )
        found = [
            Drawn(
                columns["mask_rle"][place],
                tuple(columns["bbox_xyxy"][place]),
                class_color(rank, known=False),
                f"{columns['objectness'][place]:.2f}",
            )
            for rank, place in reversed(list(enumerate(kept)))
        ]
        pictures.append(_picture(image, found, "proposals", None))
    caption = "Objects of whatever class, with their objectness. They have no class yet."
    return PictureSection("proposals", None, caption, pictures)


def _labeled(view: RunView, images: Table, instances: Table) -> PictureSection:
    names = {c.class_index: c.name for c in view.classes()}
    made = view.table("instance_masks")
    pictures = []
    for image in open_images(view, images, ("labeled",)):
        told = rows_of_image(instances.shard(image.shard), image.image_id)
        seen = with_made_masks(told, made.shard(image.shard) if made else None)
        found = [
            Drawn(
                after["mask_rle"],
                tuple(before["bbox_xyxy"]),
                class_color(before["class_index"], known=False),
                names.get(before["class_index"], f"class {before['class_index']}")
                + (" (mask made)" if before["mask_rle"] != after["mask_rle"] else ""),
            )
            for before, after in zip(told.to_pylist(), seen.to_pylist(), strict=True)
        ]
        pictures.append(_picture(image, found, "labeled objects", None))
    return PictureSection("labels given", None, "The labels that came with the data.", pictures)


def _picture(
    image: OpenImage, found: Sequence[Drawn], what: str, true: Sequence[Drawn] | None
) -> Picture:
    def draw(objects: Sequence[Drawn]) -> str:
        return draw_image(image.pixels_HW3, objects)

    return Picture(
        image.image_id,
        draw(found),
        f"image {image.image_id}, {describe(found, what)}",
        draw(true) if true is not None else None,
        f"image {image.image_id}, {describe(true or [], 'true objects')}",
    )


def open_images(
    view: RunView, images: Table, splits: Sequence[str], number: int = _NUM_IMAGES
) -> Iterator[OpenImage]:
    """Images spread evenly over the first of the splits that has any, shard by shard; without those
    whose files cannot be had any more."""
    made = view.of("images")
    if made is None:
        return
    files = ImageFiles.of(made)
    for shard, row in choose_images(listed_images(made), splits, number):
        chosen = images.shard(shard, (*FILE_COLUMNS, "height_px", "width_px")).slice(row, 1)
        try:
            pixels = files.read(chosen)[0].pixels()
        except (DataError, StorageError):
            continue  # files that stayed with the user may be gone when the page is made
        data = chosen.drop_columns(["bytes"]).to_pylist()[0]
        yield OpenImage(data["image_id"], shard, data["height_px"], data["width_px"], pixels)


def _truth_by_image(
    view: RunView, metrics: Mapping[str, Any], wanted: set[int]
) -> dict[int, list[Drawn]] | None:
    """True objects of the wanted images, in the colours of the classes that stand for them."""
    table = view.table("truth_instances")
    if table is None:
        return None
    names = view.category_names()
    color = _category_colors(view, metrics)
    out: dict[int, list[Drawn]] = {image_id: [] for image_id in sorted(wanted)}
    columns = ["image_id", "category_id", "bbox_xyxy", "mask_rle", "iscrowd"]
    for shard in table.iter_shards(columns):
        here = np.isin(shard["image_id"].to_numpy(), list(wanted))
        for row in shard.filter(here).to_pylist():
            category = row["category_id"]
            if not row["iscrowd"]:
                out[row["image_id"]].append(
                    Drawn(
                        row["mask_rle"],
                        tuple(row["bbox_xyxy"]),
                        color.get(category, _UNCLAIMED),
                        names.get(category, f"category {category}"),
                    )
                )
    return out


def _category_colors(view: RunView, metrics: Mapping[str, Any]) -> dict[int, str]:
    """category_id -> colour of its known class, or of the discovered class mapped to it."""
    colors = {
        int(row["category_id"]): class_color(int(row["class_index"]), known=True)
        for row in view.json("classes") or []
    }
    known = set(colors)
    for row in metrics.get("clusters") or []:
        category = row.get("mapped_category_id")
        if category is not None and category not in known:
            colors[category] = class_color(int(row["class_index"]), known=False)
    return colors
