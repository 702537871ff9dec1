"""Which crops a step sees: endless shuffles, as a pure function of (seed, stream, position)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Shuffle:
    """Endless stream over ``rows``: one permutation after another, each seeded by its number."""

    def __init__(self, rows: np.ndarray, seed: int, stream: int) -> None:
        self._rows, self._seed, self._stream = rows, seed, stream
        self._lap: tuple[int, np.ndarray] = (-1, rows[:0])  # the last one asked for: its rows

    def take(self, start: int, count: int) -> Tensor:
        """Positions ``start`` to ``start + count`` of the stream, int64."""
        taken, size = [], len(self._rows)
        while count > 0:
            lap, offset = divmod(start, size)
            taken.append(self._shuffled(lap)[offset : offset + count])
            start, count = start + len(taken[-1]), count - len(taken[-1])
        return torch.from_numpy(np.concatenate(taken).astype(np.int64))

    def _shuffled(self, lap: int) -> np.ndarray:
        """All rows in the order of a lap; shuffled once a lap, not once a step."""
        kept, rows = self._lap
        if kept != lap:
            rng = np.random.default_rng([self._seed, self._stream, lap])
            rows = self._rows[rng.permutation(len(self._rows))]
            self._lap = (lap, rows)
        return rows


class CropSampler:
    """Crops of each part of each step.

    Args:
        labels: class index per crop, -1 for unlabeled.
        share: of labeled crops in a part; None, or a set without labeled or without unlabeled
            crops, shuffles all crops together.
        part_size: crops per part; num_parts: parts per step.
    """

    def __init__(
        self, labels: np.ndarray, share: float | None, part_size: int, num_parts: int, seed: int
    ) -> None:
        rows = np.arange(len(labels), dtype=np.int32 if len(labels) < 2**31 else np.int64)
        labeled, unlabeled = rows[labels >= 0], rows[labels < 0]
        if share is None or len(labeled) == 0 or len(unlabeled) == 0:
            groups = [(rows, part_size)]
        else:
            num_labeled = min(max(round(share * part_size), 1), part_size - 1)
            groups = [(labeled, num_labeled), (unlabeled, part_size - num_labeled)]
        self._num_parts = num_parts
        self._streams = [(Shuffle(rows, seed, i), n) for i, (rows, n) in enumerate(groups)]

    def crops(self, step: int, part: int) -> Tensor:
        slot = step * self._num_parts + part
        return torch.cat([stream.take(slot * n, n) for stream, n in self._streams if n])
