"""Views on the CPU: 8-bit pixels through OpenCV, one crop at a time.

Eight bits are a quarter of the memory traffic of floats, and four channels (colour and mask) move
through OpenCV's resampling at the speed of one. Colour comes before resampling, while the window is
still small.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.data.crops.view_draw import ViewDraw, blur_radius_px

_FROM_VIEW = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP  # matrices lead from the view to the crop
_Move = Callable[[int, np.ndarray, tuple[int, int]], np.ndarray]


def render_pixels(
    images_N3HW: Tensor, masks_N1HW: Tensor, draw: ViewDraw, side_px: int, blur_max_px: float
) -> Tensor:
    """Geometry, colour and blur of every view.

    Args:
        images_N3HW: uint8 on the CPU, best with channels last in memory. masks_N1HW: uint8, 0 or
            255.

    Returns:
        (N, 4, side, side) uint8: colour, then the mask, 0 or 1.
    """
    images, masks = images_N3HW.permute(0, 2, 3, 1).numpy(), masks_N1HW[:, 0].numpy()
    num, size = len(images), (side_px, side_px)
    views = np.empty((num, 4, *size), dtype=np.uint8)
    colors = _colors(images, draw)
    windows, mirrored = _slices(images, draw) if draw.upright else ([...] * num, [False] * num)
    move = _resize if draw.upright else _warps(images, draw, side_px)
    for row, (window, view) in enumerate(zip(windows, views, strict=True)):
        image = images[row][window]
        if colors is not None:
            image = cv2.transform(image, colors[row])
        both = cv2.merge([image, masks[row][window]])
        both = move(row, cv2.flip(both, 1) if mirrored[row] else both, size)
        cv2.split(both, list(view))
        cv2.threshold(view[3], 127, 1, cv2.THRESH_BINARY, dst=view[3])
    if draw.blur_px_N is not None:
        _blur(views, draw.blur_px_N, blur_radius_px(blur_max_px))
    return torch.from_numpy(views)


def _resize(row: int, both: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(both, size, interpolation=cv2.INTER_LINEAR)


def _colors(images: np.ndarray, draw: ViewDraw) -> np.ndarray | None:
    """(N, 3, 4); None: colours stay."""
    if draw.recolor is None:
        return None
    means = np.array([cv2.mean(image)[:3] for image in images], np.float32).reshape(-1, 3)
    return draw.recolor.affine(torch.from_numpy(means)).numpy()


def _slices(images: np.ndarray, draw: ViewDraw) -> tuple[list[tuple[slice, slice]], list[bool]]:
    """Upright windows as rows and columns of the crop, and whether they are mirrored."""
    extent_2 = torch.tensor([images.shape[2], images.shape[1]])
    half_N2 = draw.affine_N23[:, (0, 1), (0, 1)].double()
    middle_N2 = draw.affine_N23[:, :, 2].double() + 1
    start_N2 = ((middle_N2 - half_N2.abs()) * extent_2 / 2).round().long()
    stop_N2 = ((middle_N2 + half_N2.abs()) * extent_2 / 2).round().long()
    windows = [
        (slice(y0, y1), slice(x0, x1))
        for (x0, y0), (x1, y1) in zip(start_N2.tolist(), stop_N2.tolist(), strict=True)
    ]
    return windows, (half_N2[:, 0] < 0).tolist()


def _warps(images: np.ndarray, draw: ViewDraw, side_px: int) -> _Move:
    """Turned, slanted or bent views: every pixel looks up where it comes from."""
    height, width = images.shape[1:3]
    extent_2 = torch.tensor([width, height], dtype=torch.float64)
    # view pixel -> view coordinate -> crop coordinate -> crop pixel, as one matrix
    theta_N23 = draw.affine_N23.double()
    linear_N22 = theta_N23[:, :, :2] * extent_2[:, None] / side_px
    first_N2 = theta_N23[:, :, :2].sum(dim=2) * (1 / side_px - 1) + theta_N23[:, :, 2]
    shift_N2 = ((first_N2 + 1) * extent_2 - 1) / 2
    matrices = torch.cat([linear_N22, shift_N2[:, :, None]], dim=2)
    if draw.bend_N255 is None:
        plain = matrices.numpy()

        def turn(row: int, both: np.ndarray, size: tuple[int, int]) -> np.ndarray:
            return cv2.warpAffine(
                both, plain[row], size, flags=_FROM_VIEW, borderMode=cv2.BORDER_REFLECT
            )

        return turn
    lift_S5 = _bicubic(side_px)
    bends = lift_S5 @ (draw.bend_N255 * (extent_2 / 2).float().view(2, 1, 1)) @ lift_S5.T
    place_S = torch.arange(side_px, dtype=torch.float32)
    a, b, c = (column[:, :, None, None] for column in matrices.float().unbind(2))
    maps_N2SS = bends.add_(a * place_S + c).add_(b * place_S[:, None]).numpy()

    def bend(row: int, both: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        x, y = maps_N2SS[row]
        return cv2.remap(both, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)

    return bend


def _bicubic(side_px: int) -> Tensor:
    """(S, 5) weights that lift five knots, the outer ones at the edges, to ``side_px`` values."""
    knots = torch.eye(5).view(1, 5, 5, 1)
    return F.interpolate(knots, (side_px, 1), mode="bicubic", align_corners=True)[0, :, :, 0].T


def _blur(views: np.ndarray, sigma_px_N: Tensor, radius: int) -> None:
    """Gaussian, in place, colours only."""
    taps = (2 * radius + 1,) * 2
    for view, sigma in zip(views, sigma_px_N.tolist(), strict=True):
        if sigma:
            for plane in view[:3]:
                cv2.GaussianBlur(plane, taps, sigma, dst=plane, borderType=cv2.BORDER_REPLICATE)
