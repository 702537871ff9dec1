"""What the encoder of a stored method sees of crops."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.methods.crop_views import Views
from gcdis_ray.methods.front_views import FrontViews
from gcdis_ray.methods.trunk import TRUNK, TrunkSpec, build_front, crop_views
from gcdis_ray.models.front import Front


@dataclass
class CropInputs:
    """Crops as they are, through what of the body never learned.

    Args:
        front: on the device; None if all of the body learns.
    """

    spec: TrunkSpec
    front: Front | None
    device: torch.device
    _last: tuple[pa.Table, list[Tensor]] | None = field(default=None, repr=False)

    @classmethod
    def opened(
        cls, spec: TrunkSpec, others: Mapping[str, Mapping[str, Tensor]], device: str
    ) -> CropInputs:
        """Args: others: tensors of :attr:`Trunk.members`."""
        front = build_front(spec, others.get(TRUNK), device) if spec.frozen else None
        return cls(spec, front, torch.device(device))

    def of(self, crops: pa.Table) -> Iterator[Tensor]:
        """Some crops at a time and in order; nothing for no crop.

        Snapshots of a model ask for the same crops one after another: what the frozen part says of
        the last ones is kept.
        """
        if self._last is not None and self._last[0] is crops:
            return iter(self._last[1])
        views = self._views(crops)
        if self.front is None:
            return views
        self._last = crops, list(views)
        return iter(self._last[1])

    def _views(self, crops: pa.Table) -> Iterator[Tensor]:
        store = CropStore(crops, self.spec.cache_px, budget_mb=0)
        views: Views = crop_views(self.spec, store, self.device)
        if self.front is not None:
            views = FrontViews(views, self.front)
        return views.plain(torch.arange(crops.num_rows))
