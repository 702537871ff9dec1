"""A training on two views of crops: what trained methods have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gcdis_ray.backbones.modes import in_eval
from gcdis_ray.config import TrainingConfig
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.crop_batches import CropBatches
from gcdis_ray.methods.crop_views import Views
from gcdis_ray.methods.hold_out_curve import HoldOutCurve
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.step_parts import StepParts
from gcdis_ray.methods.trunk import Trunk
from gcdis_ray.training.task import Exchange, TrainingTask

Network = TypeVar("Network", bound=nn.Module)


class CropTask(TrainingTask):
    """Draws the crops of a step, measures the hold-out, and keeps snapshots of its network.

    :meth:`setup` of a method calls :meth:`open_crops` and makes ``network``, which says of what it
    sees of crops which class they are in (``cosines_NK``); its state is a snapshot.

    Args:
        snapshot_steps: finished steps after which weights are kept.
        cache_mb: crops or their views kept in memory up to this size; changes no result.
    """

    member = "encoder"
    same_shapes = True
    views: Views
    batches: CropBatches
    curve: HoldOutCurve
    network: nn.Module

    def __init__(
        self,
        problem: Problem,
        training: TrainingConfig,
        trunk: Trunk,
        *,
        snapshot_steps: Sequence[int] = (),
        cache_mb: int = 2000,
    ) -> None:
        self.problem, self.config, self.seed = problem, training, problem.seed
        self.trunk, self._cache_mb = trunk, cache_mb
        self._snapshot_steps = frozenset(snapshot_steps)

    def open_crops(
        self, labeled_share: float | None, augment: CropAugmentConfig, device: torch.device
    ) -> Tensor:
        """Make ``views``, ``batches`` and ``curve``.

        Returns:
            (N,) int64 on the CPU, the output each crop is trained on, -1 for an unlabeled one.
        """
        self.views = self.trunk.open_views(self.problem.crops, device, self._cache_mb)
        labels_N = self.problem.told(self.views.labels)
        self.batches = CropBatches(
            self.views, labels_N, self.config, labeled_share, augment, self.seed
        )
        self.curve = HoldOutCurve(self.problem, self.views.labels)
        return labels_N

    def on_device(self, network: Network, device: torch.device) -> Network:
        """``network`` there, laid out for the precision it is trained in."""
        network = network.to(device)
        if self.config.precision == "bf16":  # convolutions in bf16 are fastest that way
            network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return network

    def _laid_out(self, seen: Tensor) -> Tensor:
        """Views in that layout, too: a strategy may have weights of its own (ZeRO flattens them),
        and one of both is enough."""
        on_gpu = seen.device.type != "cpu" and seen.ndim == 4
        if self.config.precision == "bf16" and on_gpu:
            return seen.contiguous(memory_format=torch.channels_last)
        return seen

    def remembered(self) -> Mapping[str, Any]:
        """Parts, by name, with a ``state`` that outlives a step."""
        return {"curve": self.curve}

    def batch(self, step: int, part: int) -> dict[str, Any]:
        batch = self.batches.batch(step, part)
        return batch | {name: self._laid_out(batch[name]) for name in ("images", "second")}

    def share(self, parts: Sequence[Mapping[str, Any]], exchange: Exchange) -> StepParts:
        """What this rank does of the step at hand; remembered until it is over."""
        numbers = [int(part["part"]) for part in parts]
        self.here = StepParts(numbers, self.config.micro_batches, exchange)
        return self.here

    @torch.no_grad()
    def measure(self, finished: int) -> None:
        """The hold-out, if it is due."""
        if self.curve.is_due(finished):
            with in_eval(self.network):
                self.curve.measure(finished, self.here, self.clusters)

    def clusters(self, rows: Tensor) -> Tensor:
        """Output of each of these crops, as they are, (n,) int64: by what is trained, as the
        assignments at the end. With a slow momentum, the momentum encoder of a short run is still
        what it was long ago."""
        found = [self.network(view).cosines_NK for view in self.views.plain(rows)]
        return torch.cat(found).argmax(dim=1)

    def measured(self, step: int) -> Mapping[str, float]:
        return self.curve.at(step)

    def is_snapshot(self, step: int) -> bool:
        return step in self._snapshot_steps

    def snapshot(self) -> dict[str, Tensor]:
        return self.network.state_dict()

    def export(self) -> Mapping[str, Any]:
        return self.curve.members()

    def state(self) -> Mapping[str, Any]:
        return {name: part.state() for name, part in self.remembered().items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for name, part in self.remembered().items():
            part.load_state(state[name])
