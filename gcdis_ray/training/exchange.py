"""Rows of all parts of a step in the order of parts, over one process or many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def parts_of_rank(micro_batches: int) -> range:
    """The parts this rank computes: a contiguous, equal share in rank order."""
    share = micro_batches // world_size()
    return range(rank() * share, (rank() + 1) * share)


class GroupExchange:
    """Implements :class:`gcdis_ray.training.task.Exchange` on the default process group.

    Rows travel as bytes, so every dtype works on every backend and no value changes on the way.
    """

    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        local = torch.cat([part.detach() for part in parts]).contiguous()
        world = world_size()
        if world == 1:
            return local
        sent = local.reshape(-1).view(torch.uint8)
        gathered = [torch.empty_like(sent) for _ in range(world)]
        dist.all_gather(gathered, sent)
        return (
            torch.cat(gathered).view(local.dtype).reshape(world * local.shape[0], *local.shape[1:])
        )
