"""What a network sees of stored crops: as they are, or at random.

Shape letters: N crops, S side of a view.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Generator, Tensor

from gcdis_ray.data.crops.augment import plain_view, random_view, with_mask, wobble
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.data.crops.upload import upload

_PLAIN_ROWS = 256  # un-augmented crops per forward, if they are small
_PLAIN_PIXELS = 2**20  # of them all


class Views(Protocol):
    """What shows crops to a network, by row number: as they are, or at random.

    What it sees of N crops is one tensor: images as :class:`CropViews` has them, or rows (N, D)
    that a frozen part of the network has made of them.
    """

    @property
    def labels(self) -> Tensor:
        """int64 on the CPU, known class of every crop, -1 of an unlabeled one."""
        ...

    def plain(self, rows_N: Tensor) -> Iterator[Tensor]:
        """Un-augmented crops, some at a time and in order."""
        ...

    def random(
        self, rows_N: Tensor, num_views: int, augment: CropAugmentConfig, generator: Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Random views of every crop: what the network sees, and the mask, 0 or 1.

        Args:
            generator: of the CPU, wherever the views are.
        """
        ...


class CropViews:
    """Implements :class:`Views` on the crops of a store.

    Args:
        side_px: S.
        mask_input: the network sees the mask as a fourth channel.
        device: where views are wanted, the CPU if not given.
    """

    def __init__(
        self,
        store: CropStore,
        side_px: int,
        *,
        mask_input: bool,
        device: torch.device | None = None,
    ) -> None:
        self._store, self._side_px, self._mask_input = store, side_px, mask_input
        self._device = device or torch.device("cpu")

    @property
    def labels(self) -> Tensor:
        return self._store.labels

    def plain(self, rows_N: Tensor) -> Iterator[Tensor]:
        """Un-augmented crops, (n, 3 or 4, S, S) float32, some at a time and in order."""
        most = min(_PLAIN_ROWS, max(_PLAIN_PIXELS // self._side_px**2, 8))
        for rows in rows_N.split(most) if len(rows_N) else ():
            images, masks = plain_view(*self._store.get(rows), self._side_px)
            yield self._input(images, masks).to(self._device)

    def random(
        self, rows_N: Tensor, num_views: int, augment: CropAugmentConfig, generator: Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Random views of every crop: what the network sees, (N, 3 or 4, S, S) float32, and the
        mask, (N, 1, S, S), 0 or 1. Crops go to the device once and as bytes, views are made there.

        Args:
            generator: of the CPU, wherever the views are.
        """
        crops = self._store.get(rows_N)
        there = None if self._device.type == "cpu" else upload(*crops, self._device)
        views = []
        for _ in range(num_views):
            seen, shape = random_view(*crops, self._side_px, augment, generator, there)
            input_mask = wobble(shape, augment.mask_wobble, generator)
            views.append((self._input(seen, input_mask), shape))
        return views

    def _input(self, images: Tensor, masks: Tensor) -> Tensor:
        return with_mask(images, masks) if self._mask_input else images
