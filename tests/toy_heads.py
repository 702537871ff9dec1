"""Tiny tasks of methods that train heads on a body, on crops that are rows of numbers: four blobs,
two of them of known classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from row_network import Rows
from torch import Generator, Tensor
from toy_training import FolderCheckpoints, digests, toy_plan
from two_workers import run_in_two

from gcdis_ray.backbones.modes import in_eval
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.problem import Problem
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.loop import TrainingRun, train

NUM, FEATURES, CLASSES = 48, 6, 4
TRUTH = np.arange(NUM) % CLASSES
LABELS = np.where((TRUTH < 2) & (np.arange(NUM) % 3 == 0), TRUTH, -1)  # a third of known crops
PLACED = np.where(np.arange(NUM) % 8 == 3, (TRUTH + 1) % CLASSES, TRUTH)  # an eighth is wrong


class BlobViews:
    """Implements :class:`gcdis_ray.methods.crop_views.Views`."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        centres = 3 * rng.standard_normal((CLASSES, FEATURES))
        rows = centres[TRUTH] + 0.3 * rng.standard_normal((NUM, FEATURES))
        self._rows_NF = torch.from_numpy(rows).float()
        self.labels = torch.from_numpy(LABELS)

    def plain(self, rows_N: Tensor) -> Iterator[Tensor]:
        return iter([self._rows_NF[rows_N]])

    def random(
        self, rows_N: Tensor, num_views: int, augment: Any, generator: Generator
    ) -> list[tuple[Tensor, Tensor]]:
        shape = (len(rows_N), FEATURES)
        found = []
        for _ in range(num_views):
            noise = 0.3 * torch.randn(shape, generator=generator)
            found.append((self._rows_NF[rows_N] + noise, torch.zeros(len(rows_N), 1, 0, 0)))
        return found


class RowTrunk:
    """Stands in for a :class:`gcdis_ray.methods.trunk.Trunk` that never learns."""

    def open_views(self, crops: Any, device: torch.device, cache_mb: int) -> BlobViews:
        return BlobViews()

    def build_encoder(self, attention: Any = None) -> Rows:
        return Rows(FEATURES)


def make(
    task_of: Any,
    config_of: Any,
    steps: int = 6,
    *,
    snapshot_steps: Sequence[int] | None = None,
    hold_out: HoldOut | None = None,
    measure_every: int = 0,
    placed: bool = True,
    training: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A task of a method; ``options`` are of its config."""
    problem = Problem(
        crops=None,  # type: ignore[arg-type]
        num_known=2,
        num_outputs=CLASSES,
        seed=5,
        hold_out=hold_out,
        measure_every=measure_every,
        placed_N=PLACED if placed else None,
    )
    values = {"steps": steps, "batch_size": 24, "micro_batches": 2, "lr": 0.1} | (training or {})
    heads = {"projection_hidden": 16, "projection_dim": 8}
    config = config_of.model_validate({"training": values, "heads": heads, **options})
    kept = [steps] if snapshot_steps is None else snapshot_steps
    return task_of(problem, config.training, config, RowTrunk(), snapshot_steps=kept)


def sorted_crops(task: Any) -> np.ndarray:
    """(NUM,) the class that each crop's output stands for: known ones by themselves, novel ones by
    the truth of most of its crops."""
    with torch.no_grad(), in_eval(task.network):
        output_N = task.clusters(torch.arange(NUM)).numpy()
    stands = np.arange(CLASSES)
    for output in range(2, CLASSES):
        inside = TRUTH[output_N == output]
        if len(inside):
            stands[output] = np.bincount(inside).argmax()
    return stands[output_N]


def accuracy(task: Any) -> float:
    """Of unlabeled crops."""
    free = LABELS < 0
    return float((sorted_crops(task) == TRUTH)[free].mean())


class Outcome(NamedTuple):
    """What a run leaves: hashes of its members, and the task's state and weights by name."""

    digests: dict[str, str]
    state: dict[str, Any]

    def equals(self, other: Outcome) -> bool:
        same = self.digests == other.digests and self.state.keys() == other.state.keys()
        return same and all(
            torch.equal(value, other.state[name]) if isinstance(value, Tensor) else
            value == other.state[name]
            for name, value in self.state.items()
        )  # fmt: skip


def trained(task: Any, folder: Path, *, start: int | None = None, name: str = "kept") -> Outcome:
    """The task in the real loop.

    Args:
        start: finished steps to resume from, of an earlier run in the same folder.
    """
    checkpoints = FolderCheckpoints(folder / name, start=start, save=start is None)
    members = train(task, toy_plan(folder), checkpoints, torch.device("cpu"), lambda progress: None)
    state = {**task.state(), "network": task.snapshot()}
    return Outcome(digests(members), dict(_flat(state)))


def on_device(task: Any, folder: Path, device: str) -> TrainingRun:
    """A run of the task that is stepped by hand."""
    plan = toy_plan(folder, checkpoint_every_s=86400)
    checkpoints = StoredCheckpoints(open_storage(plan.scratch_uri), plan.run)
    return TrainingRun(task, plan, checkpoints, torch.device(device), lambda progress: None)


def _flat(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _flat(value, f"{name}/{key}")
    else:
        yield name, state


def one_of_two(rank: int, folder: str, task_of: Any, config_of: Any, options: Any) -> None:
    """A run on two workers; what a worker of :func:`two_workers.run_in_two` does."""
    found = trained(make(task_of, config_of, **options), Path(folder))
    torch.save(found._asdict(), Path(folder) / f"outcome{rank}.pt")


def in_two(task_of: Any, config_of: Any, options: Any, folder: Path) -> list[Outcome]:
    """Outcomes of both ranks of a run on two workers; members are the first one's."""
    run_in_two(one_of_two, folder, task_of, config_of, options)
    return [Outcome(**torch.load(folder / f"outcome{rank}.pt")) for rank in (0, 1)]
