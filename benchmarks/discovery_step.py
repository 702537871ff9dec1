"""Time and peak memory of one full training step of discovery at the paper's shape.

    python benchmarks/discovery_step.py --threads 2
    python benchmarks/discovery_step.py --threads 2 --official /path/to/the/published/checkout

Shape: ResNet-50 with soft attention at 224 px, pools (18, 12, 8), queue 65,536 x 256, 1,200
classes, projection 2048 -> 2048 -> 256. A step is everything the training loop does with a batch
that is already there: momentum encoder, student, losses, backward, optimiser, momentum update,
queue, cluster mass, headness. Contestants take turns; times are medians over rounds, ratios medians
of round-by-round ratios. Peak memory is that of a process of its own per contestant.

``--official`` adds the step of the published code (see published_step.py for what is stubbed):
fp32, no channels-last, no stem pool, its data on the same device. On a machine that others use, CPU
seconds of one thread (``--threads 1``) tell more than wall seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import pyarrow as pa
import torch
from published_step import STUBS, PublishedStep
from torch.nn import functional as F

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.methods.gcdis import objective as discovery_objective
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk import resnet_trunk
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.loop import TrainingRun
from gcdis_ray.training.plan import FitPlan

SIDE_PX, QUEUE, DIM, CLASSES, KNOWN, CROPS = 224, 65_536, 256, 1_200, 80, 10_000
PUBLISHED = "published fp32"
OURS = {
    "fp32": ("fp32", False),
    "bf16": ("bf16", False),
    "fp32 + stem pool": ("fp32", True),
    "bf16 + stem pool": ("bf16", True),
}


class Contestant(Protocol):
    def step(self) -> None: ...

    def close(self) -> None: ...


class OneCrop:
    """Stands in for the table ``crops``: one small picture over and over, every third labeled."""

    num_rows, num_shards = CROPS, 1

    def read(self, columns: Sequence[str]) -> pa.Table:
        picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), dtype=np.uint8)
        mask[6:26, 8:24] = 255
        labels = np.where(np.arange(CROPS) % 3 == 0, np.arange(CROPS) % KNOWN, -1)
        jpeg, png = cv2.imencode(".jpg", picture)[1], cv2.imencode(".png", mask)[1]
        table = {
            "class_index": labels,
            "jpeg": [jpeg.tobytes()] * CROPS,
            "mask_png": [png.tobytes()] * CROPS,
        }
        return pa.table({name: table[name] for name in columns})

    def iter_shards(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        yield self.read(columns)


class OurStep:
    """``step()`` is one step of the training loop, on a full queue and a batch made before.

    Args:
        precision, stem_pool: see TrainingConfig and EncoderConfig.
        batch: crops per step, in one part.
    """

    def __init__(
        self, precision: str, stem_pool: bool, batch: int, device: torch.device, **encoder: Any
    ) -> None:
        self.device = device
        shape = {
            "encoder": {
                "body": "resnet", "input_px": SIDE_PX,
                "block": "bottleneck", "blocks": (3, 4, 6, 3),
                "widths": (256, 512, 1024, 2048), "stem_width": 64, "stem_kernel": 7,
                "stem_stride": 2, "stem_pool": stem_pool, **encoder,
            },
            "attention": {"pools": (18, 12, 8)},
            "heads": {
                "projection_hidden": 2048, "projection_dim": DIM,
                "projection_norm": False, "feature_norm": False,
            },
        }  # fmt: skip
        discovery = {"queue_size": QUEUE, "cache_px": 32, "prototypes": {"start": "random"}}
        training = {"steps": 10_000, "batch_size": batch, "micro_batches": 1, "lr": 0.1}
        crops: Any = OneCrop()
        model = ModelConfig.model_validate(shape)
        self.task = DiscoveryTask(
            Problem(crops, num_known=KNOWN, num_outputs=CLASSES, seed=0),
            TrainingConfig.model_validate({**training, "precision": precision}),
            model,
            DiscoveryConfig.model_validate(discovery),
            resnet_trunk(model.encoder, 32),
        )
        self._folder = tempfile.TemporaryDirectory(prefix="discovery-step-")
        storage = open_storage(self._folder.name)
        compute = ComputeConfig(
            runtime="local", workers=1, threads=torch.get_num_threads(), checkpoint_every_s=86_400
        )
        plan = FitPlan(
            name="step",
            attempt="attempt",
            scratch_uri=self._folder.name,
            writer=Attempt(storage, "step", "attempt"),
            compute=compute,
        )
        checkpoints = StoredCheckpoints(storage, plan.run)
        self.run = TrainingRun(self.task, plan, checkpoints, device, print)
        self.parts = [self.run.to_device(self.task.batch(0, 0))]
        self._fill_queue()
        self._done = 0

    def _fill_queue(self) -> None:
        state: dict[str, Any] = dict(self.task.state())
        ids = torch.randint(0, CROPS, (QUEUE,))
        state["keys"] = dict(
            keys=F.normalize(torch.randn(QUEUE, DIM), dim=1),
            labels=torch.where(ids % 3 == 0, ids % KNOWN, -1),
            instances=ids,
            next=0,
            num_valid=QUEUE,
        )
        state["targets"] = {"mass": torch.full((CLASSES,), QUEUE / CLASSES)}
        self.task.load_state(state)

    def step(self) -> None:
        self.run.step(self._done, self.parts)
        self._done += 1

    def close(self) -> None:
        self._folder.cleanup()


# ------------------------------------------------------------ measuring


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Parts:
    """Seconds per part of a step, while :meth:`watch` is on: calls are timed from outside.

    Parts that contain others are reported without them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._open: list[float] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*args: Any, **kwargs: Any) -> Any:
            began = clock(self._device)
            self._open.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                took = clock(self._device) - began
                self.seconds[name] += took - self._open.pop()
                if self._open:
                    self._open[-1] += took

        return timed_call

    @contextmanager
    def watch(self, ours: OurStep) -> Iterator[None]:
        task, run = ours.task, ours.run
        watched: list[tuple[str, Any, str]] = [
            ("teacher forward", task.teacher.module, "forward"),
            ("student forward", task.objective.model, "forward"),
            ("momentum update", task.teacher, "follow"),
            ("optimiser", run._strategy, "step"),
            ("backward", torch.Tensor, "backward"),
            ("queue: keys in, out", task.keys.queue, "show"),
            ("queue: keys in, out", task.keys.queue, "enqueue"),
            ("queue: headness", task.temperatures, "update"),
            ("queue: headness", discovery_objective, "headness"),
            ("queue: product, softmax, contrast", task.objective, "_contrast"),
            ("queue: product, softmax, contrast", discovery_objective, "instance_contrastive_loss"),
            ("queue: product, softmax, contrast", discovery_objective, "class_contrastive_loss"),
            ("other losses", task.objective, "_losses"),
            ("targets, mass, exchange", task, "prepare"),
            ("targets, mass, exchange", task, "after_step"),
            ("loop: buffers, readings, rest", run, "step"),
        ]
        before = [(owner, name, getattr(owner, name)) for _, owner, name in watched]
        for part, owner, name in watched:
            setattr(owner, name, self.timed(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, call in before:
                setattr(owner, name, call)


def queue_backward_s(ours: OurStep) -> float:
    """Seconds of the backward pass through the queue's losses alone, which "backward" contains."""
    (part,) = ours.task.prepare(ours.parts, ours.run.exchange)
    objective = ours.task.objective
    keys = F.normalize(torch.randn(len(part["images"]), DIM, device=ours.device), dim=1)
    projections = keys.requires_grad_()
    log_p = objective._contrast(projections, part)
    loss = discovery_objective.instance_contrastive_loss(log_p, part["own"])
    loss = loss + discovery_objective.class_contrastive_loss(
        log_p, part["labels"], part["key_labels"], part["num_labeled"]
    )
    began = clock(ours.device)
    loss.backward()
    return clock(ours.device) - began


def measure(
    contestants: dict[str, Contestant], rounds: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Wall and CPU seconds per contestant and round, in turn; one round before does not count."""
    wall: dict[str, list[float]] = defaultdict(list)
    cpu: dict[str, list[float]] = defaultdict(list)
    for index in range(rounds + 1):
        for name, contestant in contestants.items():
            began, used = clock(device), time.process_time()
            contestant.step()
            took, used = clock(device) - began, time.process_time() - used
            print(f"  {name}: {took:.2f} s wall, {used:.2f} s CPU", file=sys.stderr)
            if index:
                wall[name].append(took)
                cpu[name].append(used)
    return wall, cpu


def breakdown(ours: OurStep, rounds: int) -> dict[str, float]:
    """Median seconds per part, over ``rounds`` watched steps."""
    rows, backward = [], []
    for _ in range(rounds):
        parts = Parts(ours.device)
        with parts.watch(ours):
            ours.step()
        rows.append(parts.seconds)
        backward.append(queue_backward_s(ours))
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    medians["queue: backward"] = statistics.median(backward)
    medians["backward"] -= medians["queue: backward"]
    return medians


# ------------------------------------------------------------ contestants and report


def build(name: str, args: argparse.Namespace, device: torch.device) -> Contestant:
    torch.manual_seed(0)
    if name == PUBLISHED:
        images = torch.randn(args.batch, 3, SIDE_PX, SIDE_PX, device=device)
        masks = torch.zeros(args.batch, SIDE_PX, SIDE_PX, dtype=torch.int64, device=device)
        masks[:, 40:180, 60:170] = 1
        labels = torch.where(torch.arange(args.batch) % 2 == 0, torch.arange(args.batch), -1)
        return PublishedStep(args.official, images, masks, labels.to(device))
    precision, stem_pool = OURS[name]
    return OurStep(precision, stem_pool, args.batch, device)


def peak_bytes(name: str, args: argparse.Namespace) -> int:
    """Of two steps in a process of its own."""
    command = [sys.executable, __file__, "--peak-of", name]
    for option in ("batch", "threads", "device", "official"):
        if getattr(args, option) is not None:
            command += [f"--{option}", str(getattr(args, option))]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(found.stdout.splitlines()[-1])["peak_bytes"])


def print_peak(name: str, args: argparse.Namespace, device: torch.device) -> None:
    contestant = build(name, args, device)
    contestant.step()
    contestant.step()
    contestant.close()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak_bytes": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--official", type=Path, help="a checkout of the published repository")
    parser.add_argument("--only", nargs="+", default=list(OURS), choices=list(OURS))
    parser.add_argument("--no-memory", action="store_true", help="leave peak memory out")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.peak_of:
        print_peak(args.peak_of, args, device)
        return
    names = [*([PUBLISHED] if args.official else []), *args.only]
    peaks = {} if args.no_memory else {name: peak_bytes(name, args) for name in names}
    contestants = {name: build(name, args, device) for name in names}
    wall, cpu = measure(contestants, args.rounds, device)
    parts = {
        name: breakdown(ours, args.rounds)
        for name, ours in contestants.items()
        if isinstance(ours, OurStep)
    }
    for contestant in contestants.values():
        contestant.close()
    print_steps(wall, cpu, peaks, args.batch)
    print_parts(parts)
    if args.official:
        print("\nIn the published step: " + "; ".join(STUBS) + ".")


def print_steps(
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    peaks: dict[str, int],
    batch: int,
) -> None:
    base = PUBLISHED if PUBLISHED in wall else next(iter(wall))
    print("| step | wall s | crops/s | times faster | CPU s | times less | peak GiB | share |")
    print("|---|---|---|---|---|---|---|---|")
    for name in wall:
        cells = [name, f"{statistics.median(wall[name]):.2f}"]
        cells += [f"{batch / statistics.median(wall[name]):.2f}", f"{ratio(wall, base, name):.2f}"]
        cells += [f"{statistics.median(cpu[name]):.2f}", f"{ratio(cpu, base, name):.2f}"]
        if peaks:
            cells += [f"{peaks[name] / 2**30:.2f}", f"{peaks[name] / peaks[base]:.2f}"]
        print("| " + " | ".join([*cells, *["-"] * (8 - len(cells))]) + " |")
    print(f"\nBatch {batch}; factors and shares against {base}.")


def ratio(seconds: dict[str, list[float]], base: str, name: str) -> float:
    """Median of the round-by-round ratios base / name."""
    pairs = zip(seconds[base], seconds[name], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def print_parts(parts: dict[str, dict[str, float]]) -> None:
    totals = {name: sum(found.values()) for name, found in parts.items()}
    rows = sorted({part for found in parts.values() for part in found})
    print("\n| part of the step, ms (share) | " + " | ".join(parts) + " |")
    print("|---|" + "---|" * len(parts))
    for row in [*rows, "all queue work"]:
        cells = []
        for name, found in parts.items():
            value = found.get(row, 0.0)
            if row == "all queue work":
                value = sum(v for part, v in found.items() if part.startswith("queue"))
            cells.append(f"{1000 * value:.1f} ({value / totals[name]:.1%})")
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
