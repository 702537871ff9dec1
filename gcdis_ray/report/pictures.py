"""Whole images with the objects found in them drawn on top, beside what is really there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from gcdis_ray.masks import coco_rle
from gcdis_ray.report.drawing import draw_outline, encode_jpeg, faded, jpeg_uri, scaled_mask
from gcdis_ray.report.palette import class_color, ink_on, rgb
from gcdis_ray.store.artifacts import Table

SIDE_PX = 640  # longer side of a drawn image
_MAX_BYTES = 110_000
_MAX_OBJECTS = 60
_MAX_OVERLAP = 0.5  # mask IoU beyond which the lower score is not drawn
_THRESHOLDS = (0.02, 0.5)  # the display threshold stays between these


@dataclass(frozen=True)
class Drawn:
    """One object to draw. ``text`` is its label; ``mask_rle`` may be None (box only)."""

    mask_rle: str | None
    bbox_xyxy: tuple[float, float, float, float]
    color: str
    text: str


@dataclass(frozen=True)
class Picture:
    """One image, once with predictions and once, if known, with the truth."""

    image_id: int
    found_uri: str
    found_alt: str
    truth_uri: str | None
    truth_alt: str


def choose_images(images: Table, splits: Sequence[str], number: int) -> list[tuple[int, int]]:
    """Images evenly spread over the first of ``splits`` that has any: no cherry-picking.

    Returns:
        (shard, row in the shard) of at most ``number`` images with stored bytes.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for index, shard in enumerate(images.iter_shards(["split"])):
        for row, split in enumerate(shard["split"].to_pylist()):
            places.setdefault(split, []).append((index, row))
    chosen = next((places[split] for split in splits if places.get(split)), [])
    spread = np.linspace(0, len(chosen) - 1, min(number, len(chosen))).round().astype(int)
    return [chosen[i] for i in spread.tolist()]


def rows_of_image(table: pa.Table, image_id: int) -> pa.Table:
    """The rows that belong to one image, in their stored order."""
    return table.filter(table["image_id"].to_numpy() == image_id)


def display_threshold(scores: np.ndarray, wanted: float) -> float:
    """Score above which about ``wanted`` objects remain, kept within sensible limits.

    A young model is right in its ranking before it is sure of itself, so a fixed threshold would
    show nothing. It serves drawing only; every number is computed without it.
    """
    ranked = np.sort(scores)[::-1]
    rank = min(len(ranked) - 1, max(0, round(wanted) - 1))
    kth = float(ranked[rank]) if len(ranked) else 0.0
    return float(np.clip(kth, *_THRESHOLDS))


def suppress_overlaps(
    rles: Sequence[str], scores: np.ndarray, height_px: int, width_px: int
) -> list[int]:
    """Greedy class-agnostic NMS on masks: indices to keep, best score first."""
    order = np.argsort(-scores, kind="stable").tolist()
    if not order:
        return []
    overlap = coco_rle.iou_matrix(rles, rles, height_px, width_px)
    kept: list[int] = []
    for i in order:
        if all(overlap[i, j] <= _MAX_OVERLAP for j in kept):
            kept.append(i)
    return kept[:_MAX_OBJECTS]


class NamedClass(Protocol):
    """What a picture says of a class."""

    @property
    def name(self) -> str: ...
    @property
    def known(self) -> bool: ...


def drawn_predictions(
    rows: pa.Table,
    threshold: float,
    size_px: tuple[int, int],
    class_of: Callable[[int], NamedClass | None],
) -> list[Drawn]:
    """What to draw of the predictions of an image, the surest last: without those below a score,
    and those that overlap a surer one by half, of whatever class.

    Args:
        rows: of ``predictions``.
        size_px: height and width of the image.
        class_of: by ``class_index``.
    """
    table = rows.filter(np.asarray(rows["score"].to_numpy() >= threshold))
    columns = table.select(["class_index", "score", "bbox_xyxy", "mask_rle"]).to_pydict()
    found = []
    for place in reversed(
        suppress_overlaps(columns["mask_rle"], np.asarray(columns["score"]), *size_px)
    ):
        index = columns["class_index"][place]
        item = class_of(index)
        found.append(
            Drawn(
                columns["mask_rle"][place],
                tuple(columns["bbox_xyxy"][place]),
                class_color(index, bool(item and item.known)),
                f"{item.name if item else f'class {index}'} {columns['score'][place]:.2f}",
            )
        )
    return found


def draw_image(pixels_HW3: NDArray[np.uint8], objects: Sequence[Drawn]) -> str:
    """:func:`drawn_jpeg` as a data URI."""
    return jpeg_uri(drawn_jpeg(pixels_HW3, objects))


def drawn_jpeg(
    pixels_HW3: NDArray[np.uint8],
    objects: Sequence[Drawn],
    side_px: int = SIDE_PX,
    max_bytes: int = _MAX_BYTES,
) -> bytes:
    """The image with masks tinted and outlined and labels beside them, as a JPEG.

    Args:
        pixels_HW3: RGB.
        objects: drawn in this order, the last on top.
        side_px: longer side of the picture.
        max_bytes: unless the worst quality has more.
    """
    height_px, width_px = pixels_HW3.shape[:2]
    picture = Image.fromarray(pixels_HW3)
    scale = side_px / max(height_px, width_px)
    size = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    for item in objects:
        if item.mask_rle is not None:
            _tint(picture, coco_rle.decode(item.mask_rle, height_px, width_px), item.color)
        else:
            box = [value * scale for value in item.bbox_xyxy]
            ImageDraw.Draw(picture).rectangle(box, outline=item.color, width=2)
    _write_labels(picture, objects, scale)
    return encode_jpeg(picture, max_bytes)


def _tint(picture: Image.Image, mask_HW: np.ndarray, color: str) -> None:
    mask = scaled_mask(Image.fromarray(mask_HW.astype(np.uint8) * 255), picture.size)
    picture.paste(rgb(color), mask=faded(mask, 0.35))
    draw_outline(picture, mask, color)


def _write_labels(picture: Image.Image, objects: Sequence[Drawn], scale: float) -> None:
    """Labels on chips of the class colour, out of each other's way; the last is placed first."""
    font = ImageFont.load_default(size=15)
    canvas = ImageDraw.Draw(picture)
    taken: list[tuple[float, float, float, float]] = []
    for item in reversed(objects):
        if not item.text:
            continue
        left, top, right, bottom = (value * scale for value in item.bbox_xyxy)
        width = canvas.textlength(item.text, font=font) + 8
        height = 20.0
        spots = [(left, top - height), (left, bottom), (left, top), (right - width, top - height)]
        boxes = [_inside(x, y, width, height, picture.size) for x, y in spots]
        box = next((b for b in boxes if not any(_meet(b, t) for t in taken)), None)
        if box is None:
            continue
        taken.append(box)
        canvas.rounded_rectangle(box, radius=4, fill=item.color)
        canvas.text((box[0] + 4, box[1] + 1), item.text, font=font, fill=ink_on(item.color))


def _inside(
    x: float, y: float, width: float, height: float, size: tuple[int, int]
) -> tuple[float, float, float, float]:
    x = min(max(0.0, x), max(0.0, size[0] - width - 1))
    y = min(max(0.0, y), max(0.0, size[1] - height - 1))
    return x, y, x + width, y + height


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def describe(objects: Sequence[Drawn], what: str) -> str:
    """Alt text: how many objects, and the first labels."""
    names = [item.text for item in objects if item.text][:8]
    count = f"{len(objects)} {what}" if objects else f"no {what}"
    return count + (": " + ", ".join(names) if names else "")
