"""What the encoder of a stored method sees of crops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.methods.crop_views import Views
from gcdis_ray.methods.embedding import EmbedCrops, open_embedding
from gcdis_ray.methods.front_views import FrontViews
from gcdis_ray.methods.trunk import TRUNK, TrunkSpec, build_front, crop_views
from gcdis_ray.models.front import Front


@dataclass(frozen=True)
class CropInputs:
    """Crops as they are, through what of the body never learned.

    Args:
        front: on the device; None if all of the body learns, or if ``embed`` is in its place.
        embed: gives the embedding, for crops that come without; None where that is not what is
            seen.
    """

    spec: TrunkSpec
    front: Front | None
    device: torch.device
    embed: Callable[[pa.Table], NDArray[np.float32]] | None = None

    @classmethod
    def opened(
        cls, spec: TrunkSpec, others: Mapping[str, Mapping[str, Tensor]], device: str
    ) -> CropInputs:
        """Args: others: tensors of :attr:`Trunk.members`."""
        tensors, body = others.get(TRUNK), spec.body
        if spec.is_embedding and body is not None:
            spec_of = body.spec

            @cache
            def opened() -> EmbedCrops:  # crops mostly come with their embedding
                return open_embedding(spec_of, tensors, device)

            return cls(spec, None, torch.device(device), lambda crops: opened()(crops))
        front = build_front(spec, tensors, device) if spec.frozen else None
        return cls(spec, front, torch.device(device))

    def of(self, crops: pa.Table) -> Iterator[Tensor]:
        """Some crops at a time and in order; nothing for no crop."""
        return self._views(crops) if self.embed is None else self._embedded(crops, self.embed)

    def _embedded(self, crops: pa.Table, embed: EmbedCrops) -> Iterator[Tensor]:
        if crops.num_rows:
            told = "embedding" in crops.column_names
            vectors = matrix(crops["embedding"]) if told else embed(crops)
            yield torch.tensor(vectors).to(self.device)

    def _views(self, crops: pa.Table) -> Iterator[Tensor]:
        store = CropStore(crops, self.spec.cache_px, budget_mb=0)
        views: Views = crop_views(self.spec, store, self.device)
        if self.front is not None:
            views = FrontViews(views, self.front)
        return views.plain(torch.arange(crops.num_rows))
