"""The parts of a step that this rank computes, for work that all of them share.

Shape letters: M rows, S parts of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gcdis_ray.training.task import Exchange


@dataclass(frozen=True)
class StepParts:
    """What a rank can do of a step, and how it hears from the others.

    Args:
        local: numbers of this rank's parts.
        num_parts: S, over all ranks.
    """

    local: Sequence[int]
    num_parts: int
    exchange: Exchange

    def look(self, rows_M: Tensor, look: Callable[[Tensor], Sequence[Tensor]]) -> list[Tensor]:
        """What ``look`` sees of rows, in their order: each part looks at an equal share.

        Args:
            rows_M: at least one.
            look: rows -> tensors with an entry per row.
        """
        chunk = math.ceil(len(rows_M) / self.num_parts)
        padded = torch.cat([rows_M, rows_M[-1:].expand(chunk * self.num_parts - len(rows_M))])
        found = [look(padded[part * chunk : (part + 1) * chunk]) for part in self.local]
        columns = [list(column) for column in zip(*found, strict=True)]
        return [self.exchange.rows(column)[: len(rows_M)] for column in columns]

    def mean(self, values: Sequence[Tensor]) -> Tensor:
        """() over all parts, of a scalar that each part of this rank has."""
        return self.exchange.rows([value[None] for value in values]).float().mean()

    def of_first(self, value: Tensor) -> Tensor:
        """The value that the first part has, on every rank: ranks may differ in the last bit."""
        return self.exchange.rows([value] * len(self.local))[: len(value)]
