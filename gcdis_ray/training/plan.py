"""What a training is told and what it tells of itself; everything of it that is not its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from gcdis_ray.config import ComputeConfig
from gcdis_ray.store.artifacts import FileRecord
from gcdis_ray.training.pace import Pace

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Progress:
    """One step forward of a stage, for people and for whoever drives the run.

    ``values`` are what a training task measured after step ``done`` (see
    :meth:`gcdis_ray.training.task.TrainingTask.measured`), by name; mostly empty. None is left out.
    ``loss`` is a training's newest, ``losses`` are all that was logged
    with it, by name; ``pace`` is that of the steps
    since the last one told. ``total`` is 0 where nobody knows.
    """

    done: int
    total: int
    unit: str
    note: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    loss: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    pace: Pace | None = None


Show = Callable[[Progress], None]  # is told of progress, again and again


class MemberWriter(Protocol):
    """Writes whole members of the stage's artifact. Pickles to workers."""

    def tensors(self, member: str, tensors: Mapping[str, torch.Tensor]) -> FileRecord: ...
    def table(self, member: str, table: pa.Table) -> FileRecord: ...
    def json(self, member: str, value: Any) -> FileRecord: ...


@dataclass(frozen=True)
class FitPlan:
    """Everything about a training run that is not the task itself."""

    name: str  # stage and key
    attempt: str  # of this driver alone
    scratch_uri: str  # folder or s3:// prefix that survives the process, of all attempts
    writer: MemberWriter
    compute: ComputeConfig
    scratch_endpoint: str | None = None  # of an S3-compatible service; else AWS_ENDPOINT_URL

    @property
    def run(self) -> str:
        """Folder below the scratch where this training alone writes its checkpoints."""
        return f"{self.name}-{self.attempt}"
