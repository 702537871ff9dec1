"""A tiny training task that uses everything the loop offers, and places to run it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist
from tables import SCHEMAS
from torch import Tensor, nn

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.errors import DataError
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.store.artifacts import FileRecord
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.plan import FitPlan
from gcdis_ray.training.task import Exchange, TrainingTask


class ToyModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )
        self.rare = nn.Linear(16, 1)  # used by odd parts only

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        hidden = self.net[:4](batch["x"])
        fit = (self.net[4](hidden) - batch["y"]).square().mean()
        rare = self.rare(hidden).square().mean() if batch["odd"] else fit.new_zeros(())
        return {"total": fit + 0.1 * rare, "fit": fit}


class ToyTask(TrainingTask):
    """Regression against targets that depend on a queue of earlier batches.

    Args:
        die_at: process of rank 0 dies (os._exit) before this step, once: ``die_file`` says it did.
        fail_at: (step, rank) at which ``batch`` raises DataError.
        nan_at: step whose targets are not a number.
        slow_s: seconds a batch takes.
    """

    member = "toy"

    def __init__(
        self,
        config: TrainingConfig,
        seed: int = 3,
        *,
        die_at: int = -1,
        die_file: str = "",
        fail_at: int = -1,
        nan_at: int = -1,
        slow_s: float = 0.0,
    ) -> None:
        self.config, self.seed = config, seed
        self.die_at, self.die_file, self.fail_at = die_at, die_file, fail_at
        self.nan_at, self.slow_s = nan_at, slow_s

    def setup(self, device: torch.device) -> nn.Module:
        self.module = ToyModule().to(device)
        self.queue = torch.zeros(8, 6, device=device)
        self.mean = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        return self.module

    def batch(self, step: int, part: int) -> dict[str, Any]:
        if self.slow_s:
            time.sleep(self.slow_s)
        if step == self.fail_at and part == self.config.micro_batches - 1:
            raise DataError("photo is broken", where="photo 17", fix="replace it")
        if step == self.die_at and part == 0 and not Path(self.die_file).exists():
            Path(self.die_file).touch()
            os._exit(1)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step * 1009 + part)
        x = torch.randn(self.config.batch_size // self.config.micro_batches, 6, generator=generator)
        y = x[:, :3] * (math.nan if step == self.nan_at else 1.0)
        return {
            "x": x,
            "y": y,
            "odd": part % 2,
        }

    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        self.fresh = exchange.rows([part["x"][:2] for part in parts])
        shift = self.queue.mean()
        return [{**part, "y": part["y"] + 0.1 * shift} for part in parts]

    def after_step(self, step: int, exchange: Exchange) -> dict[str, float]:
        self.queue = torch.cat([self.fresh, self.queue])[:8]
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, 0.1)
        return {"queue": float(self.queue.mean())}

    def measured(self, step: int) -> Mapping[str, float]:
        return {"queue": float(self.queue.mean())} if step % 3 == 0 else {}

    def is_snapshot(self, step: int) -> bool:
        return step % 3 == 0

    def state(self) -> Mapping[str, Any]:
        return {"queue": self.queue, "mean": self.mean}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.queue.copy_(state["queue"])
        for name, value in state["mean"].items():
            self.mean[name].copy_(value)

    def snapshot(self) -> dict[str, Tensor]:
        return {**self.module.state_dict(), **{f"mean.{k}": v for k, v in self.mean.items()}}

    def export(self) -> Mapping[str, dict[str, Tensor] | pa.Table | dict | list]:
        return {"toy_spec": {"width": 16}}


def toy_config(**changes: Any) -> TrainingConfig:
    values = {
        "steps": 8,
        "batch_size": 8,
        "micro_batches": 2,
        "lr": 0.1,
        "warmup": 0.25,
        "clip_norm": 1.0,
    }
    return TrainingConfig(**{**values, **changes})


def toy_plan(
    folder: Path | str, endpoint: str | None = None, attempt: str = "attempt-1", **compute: Any
) -> FitPlan:
    """A plan whose scratch and members live below ``folder``, a path or an S3 address."""
    defaults = {"runtime": "local", "checkpoint_every_s": 0.0}
    return FitPlan(
        name="toy-0",
        attempt=attempt,
        scratch_uri=f"{folder}/toy/0/train",
        writer=Attempt(open_storage(str(folder), endpoint), "toy/0", attempt, SCHEMAS),
        compute=ComputeConfig(**{**defaults, **compute}),
        scratch_endpoint=endpoint,
    )


class FolderCheckpoints:
    """Every checkpoint of a run, none deleted; all ranks write into one folder, as on Ray.

    Args:
        start: finished steps to resume from; None: the newest, -1: from nothing.
        save: False to leave the folder as it is.
    """

    def __init__(self, folder: Path, *, start: int | None = None, save: bool = True) -> None:
        self.folder, self._start, self._save = folder, start, save

    def latest(self) -> AbstractContextManager[Path | None]:
        if self._start is not None:
            return nullcontext(self.folder / f"{self._start:010d}" if self._start >= 0 else None)
        folders = sorted(self.folder.glob("0*"))
        return nullcontext(folders[-1] if folders else None)

    def save(self, step: int, write: Callable[[Path], None] | None) -> None:
        if self._save:
            folder = self.folder / f"{step:010d}"
            folder.mkdir(parents=True, exist_ok=True)
            if write is not None:
                write(folder)
            if dist.is_initialized():
                dist.barrier()

    def urgent(self) -> bool:
        return False


def digests(members: Mapping[str, list[FileRecord]]) -> dict[str, str]:
    return {name: record.sha256 for name, (record,) in members.items()}
