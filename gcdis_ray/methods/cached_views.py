"""Views that went through the frozen part of a body once, before training draws from them.

Nothing frozen is computed twice: a step of training costs what learns, and no more. What it loses
are new views, so there should be several of each crop.

Shape letters: N crops, V random views of each, D numbers of a row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Generator, Tensor

from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.errors import DataError
from gcdis_ray.files.arrow_columns import as_lists, matrix
from gcdis_ray.files.shared_table import RandomRows, shared_table
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.front_views import FrontViews
from gcdis_ray.methods.trunk import VIEWS, TrunkSpec, build_front
from gcdis_ray.models.front import Front
from gcdis_ray.store.artifacts import Table, TensorFile

_PLAIN_ROWS = 256  # un-augmented crops at a time
_VIEWS, _GPU_PIXELS = 256, 2**22  # views that are made together, and pixels of them on a GPU
_AHEAD = 4  # shards read while one is kept


@dataclass(frozen=True)
class CacheViews:
    """Shard task over ``[crops]`` that gives ``views``, row by row; over ``[crops, embeddings]``
    where the plain view is the embedding.

    A crop's random views are drawn from its number. On a CPU its views go through the front by
    themselves, since sums inside a convolution may depend on how many there are: so bytes do not
    depend on shards. On a GPU those of many crops go together and are read back at once.

    Args:
        weights: member ``trunk``; None for a body without weights.
        num_views: V.
    """

    spec: TrunkSpec
    weights: TensorFile | None
    augment: CropAugmentConfig
    num_views: int
    seed: int
    wants_gpu = True

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        weights = self.weights.load() if self.weights else None
        front = build_front(self.spec, weights, device)

        def cache(
            index: int, crops: pa.Table, embeddings: pa.Table | None = None
        ) -> Mapping[str, pa.Table]:
            most = self._at_once(device)
            rows = [
                row
                for first in range(0, len(crops), most)
                for row in self.rows(crops.slice(first, most), front, torch.device(device))
            ]
            if embeddings is not None:
                for made, vector in zip(rows, _vectors(embeddings), strict=True):
                    made[0] = vector
            return {"views": _table(crops, rows)}

        return cache

    def _at_once(self, device: str) -> int:
        """Crops whose views are made together."""
        room = _VIEWS if device == "cpu" else min(_VIEWS, _GPU_PIXELS // self.spec.side_px**2)
        return max(1, room // (1 + self.num_views))

    def rows(
        self, crops: pa.Table, front: Front, device: torch.device, *, together: bool | None = None
    ) -> np.ndarray:
        """float16 (N, V + 1, D) of some crops, the plain view first, or room for it.

        Args:
            together: whether views of all crops go through the front in one; as the device wants
                it if not given.
        """
        store = CropStore(crops, self.spec.cache_px, budget_mb=sys.maxsize)  # decoded, once
        shown = CropViews(store, self.spec.side_px, mask_input=True, device=device)
        views, numbers = FrontViews(shown, front), crops["crop_index"].to_pylist()
        seen = (v for row, number in enumerate(numbers) for v in self._seen(shown, row, number))
        if device.type != "cpu" if together is None else together:
            seen = iter([torch.cat(list(seen))])
        halves = torch.cat([views.of(part) for part in seen]).half()
        halves_NVD = halves.view(len(numbers), -1, halves.shape[-1]).cpu().numpy()
        for number, halves_VD in zip(numbers, halves_NVD, strict=True):
            if not np.isfinite(halves_VD).all():
                raise DataError(
                    "what the frozen part of the body gives is beyond float16",
                    where=f"crop {number}",
                    fix="set encoder.cached_views: 0",
                )
        if self.spec.is_embedding:
            return np.concatenate([halves_NVD[:, :1], halves_NVD], axis=1)
        return halves_NVD

    def _seen(self, shown: CropViews, row: int, number: int) -> Iterator[Tensor]:
        """What goes into the front of one crop: the plain view, unless it is embedded, then V."""
        state = np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint64)[0]
        generator = Generator().manual_seed(int(state) & (2**63 - 1))
        same_V = torch.full((self.num_views,), row)
        if not self.spec.is_embedding:
            yield from shown.plain(same_V[:1])
        ((random_V4SS, _),) = shown.random(same_V, 1, self.augment, generator)
        yield random_V4SS


def _vectors(embeddings: pa.Table) -> np.ndarray:
    return matrix(embeddings["embedding"]) if embeddings.num_rows else np.zeros((0, 0), np.float32)


def _table(crops: pa.Table, rows: list[np.ndarray]) -> pa.Table:
    flat = np.stack(rows).reshape(len(rows), -1) if rows else np.zeros((0, 0), np.float16)
    return pa.table([crops["crop_index"], crops["class_index"], as_lists(flat)], schema=VIEWS)


class CachedViews:
    """Implements :class:`gcdis_ray.methods.crop_views.Views`: what a network sees are rows (N, D).
    Masks, (N, 1, 0, 0), are gone.

    Rows are there once per machine, whatever the number of workers, and a worker's own memory stays
    flat in the number of crops: beyond a budget the rows lie in a mapped file without a name in the
    temporary folder (``TMPDIR``), whose pages the system can drop and read again.

    Args:
        views: a table ``views``, row i of crop i; read by one worker of the machine, by shards.
        budget_mb: rows that fit into so many MB are held in memory.
        device: where views are wanted.

    Raises:
        DataError: there is no crop. StorageError: no room for the scratch file.
    """

    def __init__(self, views: Table, num_views: int, budget_mb: int, device: torch.device) -> None:
        self._device, num = device, views.num_rows
        if num == 0:
            raise DataError("no crop to learn from", where="crops")
        columns = ("class_index", "rows")
        schema = pa.schema([VIEWS.field(name) for name in columns])
        first = next(shard for shard, file in enumerate(views.shards) if file.rows)
        numbers_in_row = len(views.shard(first, ("rows",))["rows"][0])
        kept = shared_table(
            f"views {views.digest}",
            schema,
            lambda: views.iter_shards(columns, ahead=_AHEAD),
            in_memory=2 * num * numbers_in_row <= budget_mb * 1_000_000,
        )
        self._rows = RandomRows(kept)
        self._shards = [
            matrix(rows).reshape(len(rows), 1 + num_views, -1) for rows in self._rows.column("rows")
        ]
        self.labels = torch.from_numpy(kept["class_index"].to_numpy().astype(np.int64))
        pa.default_memory_pool().release_unused()

    def plain(self, rows_N: Tensor) -> Iterator[Tensor]:
        """Un-augmented crops, (n, D) float32, some at a time and in order."""
        for rows in rows_N.split(_PLAIN_ROWS) if len(rows_N) else ():
            yield self._taken(rows, torch.zeros_like(rows))

    def random(
        self, rows_N: Tensor, num_views: int, augment: CropAugmentConfig, generator: Generator
    ) -> list[tuple[Tensor, Tensor]]:
        """Random ones of the cached views of every crop, different ones while there are some.

        Args:
            augment: was heeded when they were made.
        """
        cached = self._shards[0].shape[1] - 1
        order_NV = torch.rand(len(rows_N), cached, generator=generator).argsort(dim=1)
        gone = torch.zeros(len(rows_N), 1, 0, 0)
        picks = (1 + order_NV[:, k % cached] for k in range(num_views))
        return [(self._taken(rows_N, pick_N), gone) for pick_N in picks]

    def _taken(self, rows_N: Tensor, pick_N: Tensor) -> Tensor:
        places = zip(self._rows.places(rows_N.numpy()), pick_N.tolist(), strict=True)
        found_ND = np.stack([self._shards[shard][row, pick] for (shard, row), pick in places])
        return torch.from_numpy(found_ND).to(self._device).float()
