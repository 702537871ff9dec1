"""Views of crops that have gone through the frozen part of a body.

Shape letters: N crops, S side of a view, D numbers of a row.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Generator, Tensor

from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.models.body_encoder import unnormalised
from gcdis_ray.models.front import Front


class FrontViews:
    """Implements :class:`gcdis_ray.methods.crop_views.Views`: what a network sees are rows (N, D).

    Args:
        views: with their mask as a fourth channel, on the device of ``front``.
    """

    def __init__(self, views: CropViews, front: Front) -> None:
        self._views, self._front = views, front

    @property
    def labels(self) -> Tensor:
        return self._views.labels

    def plain(self, rows_N: Tensor) -> Iterator[Tensor]:
        return (self.of(view) for view in self._views.plain(rows_N))

    def random(
        self, rows_N: Tensor, num_views: int, augment: CropAugmentConfig, generator: Generator
    ) -> list[tuple[Tensor, Tensor]]:
        seen = self._views.random(rows_N, num_views, augment, generator)
        return [(self.of(view), shape) for view, shape in seen]

    def of(self, views_N4SS: Tensor) -> Tensor:
        """Rows (N, D) of views that are there already."""
        images_N3SS = unnormalised(views_N4SS[:, :3]).clamp(0, 1)
        return self._front(images_N3SS, (views_N4SS[:, 3:] + 1) / 2)
