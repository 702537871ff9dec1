"""Crops as small pictures: which ones to show of a class, and how they are drawn."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from gcdis_ray.report.drawing import draw_outline, encode_jpeg, jpeg_uri, scaled_mask
from gcdis_ray.store.artifacts import Table


@dataclass(frozen=True)
class Frame:
    """How large a thumbnail is at most."""

    height_px: int
    width_px: int
    num_bytes: int


FINE = Frame(116, 210, 4_400)  # shown smaller, so it stays sharp on fine screens
PLAIN = Frame(80, 150, 2_400)  # as shown


@dataclass(frozen=True)
class Thumb:
    """A crop ready to be shown. ``data_uri`` holds a JPEG."""

    data_uri: str
    alt: str
    hint: str
    width_px: int
    height_px: int


@dataclass(frozen=True)
class Look:
    """How a crop is to be shown.

    Args:
        color: hex code of the outline.
        alt: what it is, for people who do not see it; the crop's number is added.
        hint: what to say on hovering; its number if there is nothing.
    """

    color: str
    alt: str
    hint: str = ""


def draw_crop(
    jpeg: bytes, mask_png: bytes, color: str, frame: Frame = FINE
) -> tuple[bytes, int, int]:
    """The crop with its mask outlined and its surroundings dimmed.

    Args:
        jpeg: RGB picture of the window.
        mask_png: 8-bit grey of the same size, 255 on the object.
        color: hex code of the outline.

    Returns:
        JPEG bytes of at most about the frame's, width and height in pixels.
    """
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    scale = min(frame.height_px / picture.height, frame.width_px / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    mask = scaled_mask(Image.open(io.BytesIO(mask_png)).convert("L"), size)
    dimmed = Image.blend(picture, Image.new("RGB", size, (24, 26, 30)), 0.45)
    picture = Image.composite(picture, dimmed, mask)
    draw_outline(picture, mask, color)
    return encode_jpeg(picture, frame.num_bytes), *size


def pick_crops(
    crop_index: np.ndarray, trust: np.ndarray, num_best: int, num_doubtful: int
) -> tuple[np.ndarray, np.ndarray]:
    """The most and the least trusted crops of one class, without overlap.

    Args:
        crop_index: of the class's crops, shape (N,).
        trust: the more the better, shape (N,); ties go to the lower crop_index.

    Returns:
        best (most trusted first) and doubtful (least trusted first, at most a third of the class).
    """
    order = crop_index[np.lexsort((crop_index, -trust))]
    num_doubtful = min(num_doubtful, len(order) // 3)
    first_doubtful = len(order) - num_doubtful
    return order[: min(num_best, first_doubtful)], order[first_doubtful:][::-1]


def iter_crops(table: Table, wanted: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows of ``crops`` in stored order, opening only the shards that hold one of ``wanted``.

    Crop indices are dense in shard order, so the number of rows tells which shard has which.

    Args:
        wanted: crop_index of each, in any order.
    """
    columns = ["crop_index", "jpeg", "mask_png"]
    ends = np.cumsum([shard.rows or 0 for shard in table.shards])
    remaining = np.unique(np.asarray(wanted, dtype=np.int64))
    homes = np.searchsorted(ends, remaining, side="right")
    for shard_index in np.unique(homes[homes < table.num_shards]).tolist():
        shard = table.shard(shard_index, columns)
        here = np.isin(shard["crop_index"].to_numpy(), remaining[homes == shard_index])
        yield from shard.take(np.flatnonzero(here)).to_pylist()


def read_crops(table: Table, wanted: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The same rows, by crop_index."""
    return {row["crop_index"]: row for row in iter_crops(table, wanted)}


def draw_thumbs(table: Table, looks: Mapping[int, Look], frame: Frame = FINE) -> dict[int, Thumb]:
    """Thumbnails of the crops that the table holds, by crop_index, drawn as they are read."""
    rows = iter_crops(table, list(looks))
    return {row["crop_index"]: _thumb(row, looks[row["crop_index"]], frame) for row in rows}


def thumbs(
    indices: Sequence[int],
    rows: Mapping[int, Mapping[str, Any]],
    *,
    color: str,
    alt: str,
    hints: Mapping[int, str],
) -> list[Thumb]:
    """Thumbnails of the crops that ``rows`` holds, in the order of ``indices``.

    Args:
        alt, hints: as in :class:`Look`, hints by crop_index.
    """
    looks = {index: Look(color, alt, hints.get(index, "")) for index in indices}
    return [_thumb(rows[index], looks[index], FINE) for index in indices if index in rows]


def _thumb(row: Mapping[str, Any], look: Look, frame: Frame) -> Thumb:
    index = row["crop_index"]
    jpeg, width, height = draw_crop(row["jpeg"], row["mask_png"], look.color, frame)
    text = f"{look.alt}, crop {index}" + (f", {look.hint}" if look.hint else "")
    return Thumb(jpeg_uri(jpeg), text, look.hint or f"crop {index}", width, height)
