"""How the workers of one training run share a step: DDP, or DeepSpeed's ZeRO. Tasks know neither.

The module, its buffers and the task's state are equal on every rank, so rank 0 saves them for all.
ZeRO splits the optimiser's state over ranks: each rank saves its own piece beside that file, and
only the same number of workers can read the pieces back.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.training.checks import check_strategy
from gcdis_ray.training.exchange import rank, world_size


class Strategy(Protocol):
    sharded: bool  # every rank has something of its own to save
    layout: str  # what a checkpoint of this strategy can be loaded into

    def part(self, batch: Any, *, last: bool) -> dict[str, Tensor]:
        """Forward and backward of one part; ``last`` of this rank's parts in this step.

        Returns:
            the named losses, detached.
        """
        ...

    def step(self, lr: float) -> None:
        """Average gradients over all parts, clip, update, clear."""
        ...

    def save(self, folder: Path) -> None:
        """Write this rank's optimiser state; called on rank 0, or on all ranks if sharded."""
        ...

    def load(self, folder: Path) -> None:
        """Read it back; the module's own state has been loaded before."""
        ...


def build_strategy(
    module: nn.Module, training: TrainingConfig, compute: ComputeConfig, device: torch.device
) -> Strategy:
    kinds = {"ddp": Replicated, "deepspeed": Zero}
    check_strategy(compute)  # a worker can have another environment than the driver
    return kinds[compute.strategy](module, training, compute, device)


def build_optimizer(module: nn.Module, config: TrainingConfig) -> Optimizer:
    """The configured optimiser; weight decay spares 1-d parameters (biases, norms).

    A submodule with an attribute ``lr_share`` learns at that share of the learning rate
    (:func:`set_learning_rate`).
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise ConfigError("the task has no trainable parameters", where="training")
    share_of: dict[Tensor, float] = {}
    for part in module.modules():
        if (share := getattr(part, "lr_share", None)) is not None:
            share_of |= dict.fromkeys(part.parameters(), float(share))
    groups = [
        {
            "params": [
                p for p in trained if share_of.get(p, 1.0) == share and (p.ndim > 1) == decays
            ],
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr": config.lr * share,
            "lr_share": share,
        }
        for share in sorted({1.0, *share_of.values()}, reverse=True)
        for decays in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """Of every group, by its share."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_share"]


def check_layout(stored: str, wanted: str, where: str) -> None:
    """Refuse a checkpoint whose optimiser state this run cannot read."""
    if stored != wanted:
        raise ConfigError(
            f"the unfinished training was saved by {stored}, this run is {wanted}",
            where=where,
            fix="set compute.strategy, compute.zero_stage and compute.workers as they were, or "
            "remove that folder to train from the start",
        )


class Replicated:
    """Whole optimiser on every rank; gradients averaged by DDP when there are several ranks."""

    sharded = False
    layout = "strategy ddp"

    def __init__(
        self,
        module: nn.Module,
        training: TrainingConfig,
        compute: ComputeConfig,
        device: torch.device,
    ) -> None:
        self._module, self._device = module, device
        self._bf16 = training.precision == "bf16"
        self._clip_norm = training.clip_norm or math.inf
        self._local_parts = training.micro_batches // world_size()
        self._optimizer = build_optimizer(module, training)
        self._forward: nn.Module = module
        if world_size() > 1:
            self._forward = nn.parallel.DistributedDataParallel(
                module,
                device_ids=[device] if device.type == "cuda" else None,
                forward_sync_buffers=False,  # the loop keeps buffers equal over parts
                find_unused_parameters=True,  # a part without objects leaves heads unused
            )

    def _hold_gradients(self) -> AbstractContextManager[None]:
        ddp = self._forward
        if isinstance(ddp, nn.parallel.DistributedDataParallel):
            return ddp.no_sync()
        return nullcontext()

    def part(self, batch: Any, *, last: bool) -> dict[str, Tensor]:
        with nullcontext() if last else self._hold_gradients():
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                losses = self._forward(batch)
            (losses["total"] / self._local_parts).backward()
        return {name: loss.detach() for name, loss in losses.items()}

    def step(self, lr: float) -> None:
        for parameter in self._module.parameters():
            if parameter.requires_grad and parameter.grad is None:  # used by no part of this step
                parameter.grad = torch.zeros_like(parameter)
        nn.utils.clip_grad_norm_(self._module.parameters(), self._clip_norm)
        set_learning_rate(self._optimizer, lr)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def save(self, folder: Path) -> None:
        torch.save(self._optimizer.state_dict(), folder / "optimizer.pt")

    def load(self, folder: Path) -> None:
        self._optimizer.load_state_dict(read_tensors(folder / "optimizer.pt"))


class Zero:
    """DeepSpeed ZeRO stage 1 (optimiser state split over ranks) or 2 (gradients too).

    DeepSpeed fills its buckets in the order in which gradients become ready. Parts of one step can
    leave different parameters unused, so ranks could disagree about that order and average
    gradients of different parameters, without a word. Therefore a rank's whole gradient is computed
    first and handed over through a sum that has the same graph everywhere.
    """

    sharded = True

    def __init__(
        self,
        module: nn.Module,
        training: TrainingConfig,
        compute: ComputeConfig,
        device: torch.device,
    ) -> None:
        self.layout = (
            f"strategy deepspeed, zero_stage {compute.zero_stage}, {world_size()} worker(s)"
        )
        self._module, self._device = module, device
        self._bf16 = training.precision == "bf16"
        self._local_parts = training.micro_batches // world_size()
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._gradients: list[Tensor] = []
        for parameter in self._parameters:  # DeepSpeed sends and flattens them as they lie
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        self._engine, self._optimizer, _, _ = _import_deepspeed(device).initialize(
            model=module,
            optimizer=build_optimizer(module, training),
            config={
                "train_micro_batch_size_per_gpu": training.batch_size // world_size(),
                "gradient_accumulation_steps": 1,
                "gradient_clipping": training.clip_norm,
                "steps_per_print": 10**9,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": compute.zero_stage},
            },
            dist_init_required=False,
        )

    def part(self, batch: Any, *, last: bool) -> dict[str, Tensor]:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            losses = self._module(batch)
        share = losses["total"] / self._local_parts
        gradients = torch.autograd.grad(share, self._parameters, materialize_grads=True)
        if self._gradients:
            self._gradients = [a + b for a, b in zip(self._gradients, gradients, strict=True)]
        else:
            self._gradients = list(gradients)
        return {name: loss.detach() for name, loss in losses.items()}

    def step(self, lr: float) -> None:
        set_learning_rate(self._optimizer, lr)
        pairs = zip(self._parameters, self._gradients, strict=True)
        total = torch.stack([(parameter * gradient).sum() for parameter, gradient in pairs]).sum()
        self._engine.backward(total)  # whose gradient is exactly self._gradients
        self._engine.step()
        self._gradients = []

    def _file(self, folder: Path) -> Path:
        return folder / f"optimizer_rank{rank():05d}.pt"

    def save(self, folder: Path) -> None:
        torch.save(self._optimizer.optimizer.state_dict(), self._file(folder))

    def load(self, folder: Path) -> None:
        self._optimizer.optimizer.load_state_dict(read_tensors(self._file(folder)))
        self._optimizer.refresh_fp32_params()  # the optimiser's own copy of the loaded weights


def _import_deepspeed(device: torch.device) -> Any:
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    deepspeed.utils.logger.setLevel("ERROR")
    if device.type == "cpu":
        # An optional shared-memory collective that DeepSpeed would compile at first use; gloo
        # does the same work without a compiler.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def read_tensors(path: Path) -> dict[str, Any]:
    """Tensors, numbers, strings and containers of them; anything that could run code is refused."""
    return torch.load(path, map_location="cpu", weights_only=True)
