"""A map of crops as points, before and after discovery; pointing at one shows the crop.

There is no script: a point and its picture are one group of the drawing, and the style sheet shows
the picture while the pointer is over the group. All pictures lie on one sheet.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from gcdis_ray.report.class_points import ClassPoints
from gcdis_ray.report.drawing import encode_jpeg, jpeg_uri, scaled_mask
from gcdis_ray.report.gallery import iter_crops
from gcdis_ray.report.html import fill
from gcdis_ray.report.marks import short
from gcdis_ray.report.projection import project
from gcdis_ray.report.view import ClassView, RunView

MAX_POINTS = 1_000  # seven elements each, and a picture of about 1 kB
_TILE_PX = 64  # side of a picture on the sheet; shown larger
_SHEET_BYTES = 1_000_000
_MAX_NAMED = 24
_SIDE, _MARGIN, _GAP = 480, 14, 30  # of a panel, in units of the drawing
_PREVIEW = 190  # side of the picture of the crop that is pointed at


@dataclass(frozen=True)
class Panel:
    """One map of the drawing: its title, its left edge, and the names on it as (x, y, class)."""

    title: str
    left: int
    names: Sequence[tuple[float, float, ClassView]]


@dataclass(frozen=True)
class Point:
    """One crop: where it lies in each panel, and where its picture is on the sheet."""

    crop_index: int
    class_index: int
    name: str
    given: bool  # its class is a label
    places: Sequence[tuple[float, float]]
    x: int
    y: int


def map_sample(class_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rising crop_index of the crops on the map: all of those in a class, or evenly spread ones."""
    there = np.flatnonzero(class_N >= 0)
    return there[:: max(1, -(-len(there) // MAX_POINTS))]


def crop_map(
    view: RunView,
    spaces: Mapping[str, ClassPoints],
    class_N: NDArray[np.int64],
    unlabeled: NDArray[np.int64],
    classes: Mapping[int, ClassView],
) -> Markup:
    """The drawing, nothing of fewer than three crops.

    Args:
        spaces: title of each panel -> what it shows, of the same crops.
        class_N: class of each crop by crop_index.
        unlabeled: crop_index of those whose class is no label.

    Raises:
        ConfigError: the view's projection is not installed.
    """
    index_M = min((space.map_M for space in spaces.values()), key=len, default=np.zeros(0, int))
    if len(index_M) < 3:
        return Markup("")
    class_M, given_M = class_N[index_M], ~np.isin(index_M, unlabeled)
    panels, places = [], []
    for n, (title, space) in enumerate(spaces.items()):
        rows = space.map_MD[np.isin(space.map_M, index_M)]
        left = n * (_SIDE + _GAP)
        placed = _fit(project(rows, view.projection), left)
        places.append(placed)
        panels.append(Panel(title, left, _names(placed, class_M, classes)))
    sheet, at = _sheet(view, index_M)
    points = [
        Point(
            crop,
            index,
            short(classes[index].name, 24),
            bool(given_M[m]),
            [(round(float(p[m, 0]), 1), round(float(p[m, 1]), 1)) for p in places],
            *at.get(crop, (0, 0)),
        )
        for m, (crop, index) in enumerate(zip(index_M.tolist(), class_M.tolist(), strict=True))
        if index in classes
    ]
    # Known ones first, so that discovered ones, which one looks for, lie on top.
    points.sort(key=lambda p: (not classes[p.class_index].known, p.crop_index))
    shown: dict[str, Any] = dict(
        panels=panels,
        points=points,
        sheet=jpeg_uri(encode_jpeg(sheet, _SHEET_BYTES)),
        sheet_size=sheet.size,
        tile=_TILE_PX,
        side=_SIDE,
        preview=_PREVIEW,
        right=len(panels) * (_SIDE + _GAP),
        radius=round(float(np.clip(130 / np.sqrt(len(points) + 1), 3.6, 7)), 1),
        total=int((class_N >= 0).sum()),
        umap=view.projection == "umap",
    )
    return fill("map", **shown)


def _fit(points_M2: NDArray[np.float64], left: int) -> NDArray[np.float64]:
    """Into a panel, upright, both axes in one scale; a few far ones do not shrink the rest."""
    low, high = np.quantile(points_M2, [0.005, 0.995], axis=0)
    middle, extent = (low + high) / 2, max(float((high - low).max()), 1e-9)
    inner = _SIDE - 2 * _MARGIN
    scaled = ((points_M2 - middle) / extent).clip(-0.52, 0.52) * inner
    return np.array([left + _SIDE / 2, _SIDE / 2]) + scaled * np.array([1, -1])


def _names(
    placed_M2: NDArray[np.float64], class_M: NDArray[np.int64], classes: Mapping[int, ClassView]
) -> list[tuple[float, float, ClassView]]:
    """Names of the largest classes at their medians, moved apart where they would meet."""
    present, counts = np.unique(class_M, return_counts=True)
    largest = present[np.argsort(-counts, kind="stable")][:_MAX_NAMED].tolist()
    middles = {
        index: np.median(placed_M2[class_M == index], axis=0)
        for index in largest
        if index in classes
    }
    written: list[tuple[float, float, ClassView]] = []
    for index in sorted(middles, key=lambda i: float(middles[i][1])):
        x, y = (round(float(value), 1) for value in middles[index])
        while any(abs(x - a) < 75 and abs(y - b) < 15 for a, b, _ in written):
            y += 5
        written.append((x, round(y, 1), classes[index]))
    return written


def _sheet(
    view: RunView, index_M: NDArray[np.int64]
) -> tuple[Image.Image, dict[int, tuple[int, int]]]:
    """Pictures of these crops on one sheet, and the left upper corner of each by crop_index."""
    columns = max(1, int(np.ceil(np.sqrt(len(index_M)))))
    rows = max(1, -(-len(index_M) // columns))
    sheet = Image.new("RGB", (columns * _TILE_PX, rows * _TILE_PX), (24, 26, 30))
    table, at = view.table("crops"), {}
    for n, row in enumerate(iter_crops(table, index_M.tolist()) if table else ()):
        corner = (n % columns * _TILE_PX, n // columns * _TILE_PX)
        tile = _tile(row["jpeg"], row["mask_png"])
        inset = [(_TILE_PX - side) // 2 for side in tile.size]
        sheet.paste(tile, (corner[0] + inset[0], corner[1] + inset[1]))
        at[row["crop_index"]] = corner
    return sheet, at


def _tile(jpeg: bytes, mask_png: bytes) -> Image.Image:
    """The crop with its surroundings dimmed, its longer side that of a tile."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    scale = _TILE_PX / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    mask = scaled_mask(Image.open(io.BytesIO(mask_png)).convert("L"), (width, height))
    dimmed = Image.blend(picture, Image.new("RGB", picture.size, (24, 26, 30)), 0.35)
    return Image.composite(picture, dimmed, mask)
