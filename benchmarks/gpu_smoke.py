"""Every stage on one GPU, in about two minutes: does it run, and how fast is each?

    make gpu-smoke                                # where no GPU is: says so, and that is all
    python benchmarks/gpu_smoke.py --cpu          # the same script in small, on a CPU
    gcdis plan CONFIG --rates runs/gpu_smoke.json

Runs `benchmarks/gpu_smoke.yaml` on scenes of digits in this process: no Ray, no DeepSpeed, no
network. Rates are of what comes after the first shard of a data step and the first fifth of a
training, when kernels have been chosen and memory has been taken. They are written as JSON that
`gcdis plan --rates` reads. Rows are images or crops; what is over in a moment has no rate.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

if TYPE_CHECKING:
    from gcdis_ray.config import ComputeConfig
    from gcdis_ray.run.pipeline import Event
    from gcdis_ray.runtime.base import Runtime, ShardRecord, ShardTask
    from gcdis_ray.training.pace import Pace

CONFIG = Path(__file__).with_suffix(".yaml")
OLDEST_TORCH = (2, 10)
SCENES = dict(num_labeled=32, num_unlabeled=48, num_validation=24)
SIZE = dict(size_px=480, stroke_px=(80, 170))
SMALL_SCENES = dict(num_labeled=16, num_unlabeled=24, num_validation=16)
SMALL = (  # what makes it a matter of a minute or two on a CPU
    "compute.gpus_per_worker=0",
    "stages.ingest.images_per_shard=4",
    "stages.propose.detector.backbone=small",
    "stages.propose.detector.fpn_channels=32",
    "stages.propose.detector.anchor_sizes_px=[20, 40, 80]",
    "stages.propose.detector.anchor_ratios=[1.0]",
    "stages.propose.detector.min_side_px=128",
    "stages.propose.detector.max_side_px=192",
    "stages.propose.detector.rpn_pre_nms=100",
    "stages.propose.detector.rpn_post_nms=50",
    "stages.propose.detector.roi_batch=32",
    "stages.propose.detector.box_channels=64",
    "stages.propose.detector.mask_channels=16",
    "stages.propose.detector.mask_convs=1",
    "stages.propose.training.steps=10",
    "stages.propose.training.precision=fp32",
    "stages.propose.max_per_image=6",
    "stages.crop.max_side_px=64",
    "stages.embed.input_px=64",
    "stages.discover.gcdis.training.steps=10",
    "stages.discover.gcdis.training.batch_size=16",
    "stages.discover.gcdis.training.precision=fp32",
    "stages.discover.gcdis.model.encoder.input_px=32",
    "stages.discover.gcdis.model.encoder.block=basic",
    "stages.discover.gcdis.model.encoder.blocks=[1, 1, 1]",
    "stages.discover.gcdis.model.encoder.widths=[16, 32, 64]",
    "stages.discover.gcdis.model.encoder.stem_width=16",
    "stages.discover.gcdis.model.encoder.stem_kernel=3",
    "stages.discover.gcdis.model.encoder.stem_pool=false",
    "stages.discover.gcdis.model.attention.pools=[4, 3, 2]",
    "stages.discover.gcdis.model.heads.projection_hidden=64",
    "stages.discover.gcdis.model.heads.projection_dim=32",
    "stages.discover.gcdis.discovery.queue_size=256",
    "stages.discover.gcdis.discovery.cache_px=40",
    "stages.segment.training.steps=10",
    "stages.segment.training.precision=fp32",
    "stages.predict.max_per_image=20",
    "stages.evaluate.max_per_image=20",
)
WARM_UP = 0.2  # share of a training that its rate leaves out
# What data steps make, and of which rows. What else a stage maps is small beside it.
MEMBERS = {
    "images": "images", "proposals": "images", "crops": "images", "embeddings": "crops",
    "assignments": "crops", "stabilities": "crops", "predictions": "images",
}  # fmt: skip


@dataclass
class Seen:
    """Of one stage."""

    seconds: float = 0.0
    training_by: str = "cpu"
    trained: list[tuple[int, Pace]] = field(default_factory=list)  # finished steps, pace
    rows: int = 0  # of shards after the first that had any
    rows_s: float = 0.0
    rows_by: str = "cpu"
    unit: str = "rows"  # what they are
    gpu_bytes: int = 0

    @property
    def rows_per_s(self) -> float | None:
        return self.rows / self.rows_s if self.rows and self.rows_s else None

    @property
    def pace(self) -> Pace | None:
        """Of the training without its warm-up."""
        if not self.trained:
            return None
        last = self.trained[-1][0]
        warm = [pace for done, pace in self.trained if done - pace.steps >= WARM_UP * last]
        warm = warm or [self.trained[-1][1]]
        total = warm[0]
        for pace in warm[1:]:
            total = total + pace
        return total


class Placed:
    """A task that knows what it was opened on."""

    def __init__(self, task: ShardTask) -> None:
        self._task, self.by = task, "cpu"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def open(self, device: str) -> Callable[..., Any]:
        self.by = "gpu" if device == "cuda" else "cpu"
        return self._task.open(device)


class Watch:
    """Sees a run's events, and times what the local runtime does."""

    def __init__(self, device: str) -> None:
        self.device, self.seen = device, dict[str, Seen]()
        self.stage, self._began = "", 0.0

    def show(self, event: Event) -> None:
        if event.kind == "start":
            self.stage, self._began = event.stage, time.perf_counter()
            self.seen[event.stage] = Seen()
            if self.device == "cuda":
                gc.collect()
                _cuda().empty_cache()  # what an earlier stage took is not this one's
                _cuda().reset_peak_memory_stats()
        elif event.kind == "progress" and event.progress and event.progress.pace:
            self.seen[event.stage].trained.append((event.progress.done, event.progress.pace))
        elif event.kind == "done":
            now = self.seen[event.stage]
            now.seconds = time.perf_counter() - self._began
            now.training_by = "gpu" if self.device == "cuda" else "cpu"
            if self.device == "cuda":
                peaks = [pace.gpu_memory_bytes for _, pace in now.trained]
                now.gpu_bytes = max(_cuda().max_memory_reserved(), *peaks, 0)

    def runtime(self, compute: ComputeConfig) -> Runtime:
        """The local one, watched."""
        from gcdis_ray.runtime.local import LocalRuntime

        watch = self

        class Timed(LocalRuntime):
            def map_shards(
                self, task, tables, args, indices, writer, done, waiting=lambda reason: None
            ) -> None:
                now, since, first = watch.seen[watch.stage], time.perf_counter(), True
                task = Placed(task)

                def timed(record: ShardRecord) -> None:
                    nonlocal since, first
                    took = time.perf_counter() - since
                    made = max((file.rows or 0 for file in record.files.values()), default=0)
                    units = [unit for member, unit in MEMBERS.items() if member in record.files]
                    if made and units:
                        if not first:
                            went = tables[0].shards[record.index].rows if tables else made
                            now.rows, now.rows_s = now.rows + (went or 0), now.rows_s + took
                            now.rows_by, now.unit = task.by, units[0]
                        first = False
                    done(record)
                    since = time.perf_counter()

                super().map_shards(task, tables, args, indices, writer, timed, waiting)

        return Timed(compute)


def _cuda() -> Any:
    import torch

    return torch.cuda


def reason_to_skip(cpu: bool) -> str | None:
    """Why it cannot run here; None if it can."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < OLDEST_TORCH:
        return f"torch {torch.__version__} is older than {'.'.join(map(str, OLDEST_TORCH))}"
    if not cpu and not torch.cuda.is_available():
        return "torch sees no GPU here (--cpu tries the script without one)"
    return None


def run(folder: Path, device: str, overrides: Sequence[str], scenes: Mapping[str, Any]) -> Watch:
    """Every stage into ``folder``, from nothing."""
    from gcdis_ray.data.samples.digits import write_scenes
    from gcdis_ray.run.checks import before_run
    from gcdis_ray.run.pipeline import Pipeline, load_config
    from gcdis_ray.run.progress import Reporter

    began = time.perf_counter()
    write_scenes(folder / "scenes", **scenes)
    print(f"scenes: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    places = [f"storage={folder / 'storage'}", f"stages.ingest.root={folder / 'scenes'}"]
    pipeline = Pipeline(load_config(CONFIG, [*overrides, *places]))
    before_run(pipeline.config)
    watch, reporter = Watch(device), Reporter()
    runtime = watch.runtime(pipeline.config.compute)

    def show(event: Event) -> None:
        watch.show(event)
        reporter(event)

    try:
        pipeline.run(lambda: runtime, show)
    finally:
        reporter.close()
    return watch


def rates(watch: Watch, machine: str) -> dict[str, Any]:
    """What ``gcdis plan --rates`` reads."""
    stages: dict[str, Any] = {}
    for name, seen in watch.seen.items():
        told: dict[str, Any] = {"measured": {"seconds": round(seen.seconds, 2)}}
        if pace := seen.pace:
            told["samples"] = {"per_s": round(pace.samples_per_s, 3), "by": seen.training_by}
            told["measured"]["data_wait"] = round(pace.data_wait, 4)
        if seen.rows_per_s:
            told["rows"] = {"per_s": round(seen.rows_per_s, 3), "by": seen.rows_by}
        if seen.gpu_bytes:
            told["measured"]["gpu_memory_bytes"] = seen.gpu_bytes
        stages[name] = told
    return {"what": machine, "estimated": False, "stages": stages}


def table(watch: Watch) -> str:
    """The same for people."""
    lines = [
        f"{'stage':<13}{'seconds':>9}{'samples/s':>11}{'waits':>7}{'rows/s':>17}{'by':>5}"
        f"{'GPU peak':>11}"
    ]
    for name, seen in watch.seen.items():
        pace, rows = seen.pace, seen.rows_per_s
        lines.append(
            f"{name:<13}{seen.seconds:>9.1f}"
            f"{_number(pace and pace.samples_per_s):>11}"
            f"{f'{100 * pace.data_wait:.0f} %' if pace else '':>7}"
            f"{f'{_number(rows)} {seen.unit}' if rows else '':>17}"
            f"{seen.rows_by if rows else '':>5}"
            f"{f'{seen.gpu_bytes / 1e9:.1f} GB' if seen.gpu_bytes else '':>11}"
        )
    lines.append(f"{'all':<13}{sum(seen.seconds for seen in watch.seen.values()):>9.1f}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if not value else f"{value:,.1f}"


def machine(device: str) -> str:
    import platform

    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    networks = "the paper's networks" if device == "cuda" else "tiny networks"
    return f"gpu_smoke on one {name}, torch {torch.__version__}, {networks}"


def main(argv: Sequence[str] | None = None, told: Callable[[str], None] = print) -> int:
    """Exit status: 0 also where it is skipped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="in small, on a CPU")
    parser.add_argument("--out", default="runs/gpu_smoke.json", help="where the rates are written")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    if reason := reason_to_skip(args.cpu):
        told(f"gpu-smoke: skipped: {reason}")
        return 0
    device = "cpu" if args.cpu else "cuda"
    scenes = SMALL_SCENES if args.cpu else SCENES | SIZE
    overrides = [*(SMALL if args.cpu else ()), *args.set]
    from gcdis_ray.errors import GcdisError

    try:
        with tempfile.TemporaryDirectory(prefix="gcdis-smoke-") as folder:
            watch = run(Path(folder), device, overrides, scenes)
    except GcdisError as error:
        print(f"gpu-smoke: {error}", file=sys.stderr)
        return 2
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rates(watch, machine(device)), indent=1) + "\n")
    told(table(watch))
    told(f"rates: {out}; next: gcdis plan CONFIG --rates {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
