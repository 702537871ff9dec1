"""Augmented samples per second and core from crop shards, and what Ray Data leaves of them.

    python benchmarks/crop_input.py
    python benchmarks/crop_input.py --ray --rounds 5

A *sample* is one augmented view: the picture (side x side x 3) and its mask, made from a crop's
encoded JPEG and PNG as the crop stage stores them. Discovery shows two views of each crop it
decodes, and views leave as bytes: they become normalised floats on the device. That is the first
figure of a shape. The others: a decode for every view; floats made here as well; crops that
were decoded before (they fit ``cache_mb``); and all of it as float tensors, which is how a GPU does
it. Shapes: the paper's 224 px, from crops whose longer side is 96 px, where the crop stage stores
them by default, or 96 to 128 px; and the quickstart's 32 px from crops of 30 to 96 px, with crop,
flip and colour jitter, and with everything the quickstart switches on.
Figures are CPU seconds of one thread over rounds in which all take turns: median, and best in
brackets. Both, because CPU seconds stretch when others use the machine's caches and memory; the
probe, one OpenCV resize of a 96 px crop to 224 px in four channels, shows by how much.

``--ray``: two consumers decode and augment whole epochs of shards, as two training workers would;
first reading the shards themselves, then fed by Ray Data (``streaming_split``), in turn. Rates are
wall-clock from the first batch to the last of both; beside them samples per CPU second of all
processes, Ray's own included, which a busy machine disturbs less. Linux only.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from crop_tables import crop_rows, write_crops

from gcdis_ray.config import ComputeConfig
from gcdis_ray.data.crops.augment import normalize_bytes, random_view
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.data.crops.view_draw import draw_views
from gcdis_ray.data.crops.view_pixels import render_pixels
from gcdis_ray.data.crops.view_tensors import render_tensors
from gcdis_ray.store.artifacts import Table

BATCH, FILES, ROWS_PER_FILE = 64, 4, 256
MARK = "GCDIS_BENCHMARK"
SHARDS_PER_BLOCK = 4
COLUMNS = ("class_index", "jpeg", "mask_png")
PLAIN = CropAugmentConfig.model_validate({"blur": 0.0})  # crop, flip, colour jitter and grey
QUICKSTART = CropAugmentConfig.model_validate(
    dict(min_area=0.7, max_aspect=1.25, flip=False, rotation_deg=20, shear=0.2, elastic=0.06)
    | dict(hue=0.5, brightness=0.5, contrast=0.5, saturation=0.5, grey=0.3, invert=0.3)
    | dict(blur=0.3, noise=0.05, mask_wobble=0.5)
)


@dataclass(frozen=True)
class Shape:
    longest_px: tuple[int, int]  # of the stored crops
    cache_px: int
    view_px: int
    augment: CropAugmentConfig


SHAPES = {
    "224 px": Shape((96, 96), 96, 224, PLAIN),
    "224 px, larger crops": Shape((96, 128), 128, 224, PLAIN),
    "32 px": Shape((30, 96), 40, 32, PLAIN),
    "32 px, quickstart": Shape((30, 96), 40, 32, QUICKSTART),
}


# ------------------------------------------------------------------ one core


class Parts:
    """One batch of a shape, cut into the parts that are timed."""

    def __init__(self, shape: Shape, crops: Table) -> None:
        self._shape, self._crops = shape, crops
        self._encoded = CropStore(crops, shape.cache_px, budget_mb=0)
        self._decoded = CropStore(crops, shape.cache_px, budget_mb=10_000)
        self._generator = torch.Generator().manual_seed(0)
        self.take()

    def take(self) -> None:
        """Other crops for the next round."""
        self._rows = torch.randperm(self._crops.num_rows, generator=self._generator)[:BATCH]
        self._pair = self._encoded.get(self._rows)
        self._draw = self._drawn()
        self._views = self.geometry_and_color()

    def _drawn(self) -> Any:
        shape = self._shape
        return draw_views(self._pair[1], shape.augment, self._generator, shape.view_px)

    def _render(self, draw: Any) -> torch.Tensor:
        shape = self._shape
        return render_pixels(*self._pair, draw, shape.view_px, shape.augment.blur_max_px)

    def decode(self) -> None:
        self._pair = self._encoded.get(self._rows)

    def draw(self) -> None:
        self._draw = self._drawn()

    def geometry(self) -> None:
        self._render(replace(self._draw, recolor=None))

    def geometry_and_color(self) -> torch.Tensor:
        return self._render(self._draw)

    def floats(self) -> None:
        normalize_bytes(self._views[:, :3].float())
        self._views[:, 3:].float()

    def two_views(self) -> None:
        self.decode()
        for _ in range(2):
            self._render(self._drawn())

    def one_view(self) -> None:
        self.decode()
        self._render(self._drawn())

    def two_views_floats(self) -> None:
        self.decode()
        for _ in range(2):
            random_view(*self._pair, self._shape.view_px, self._shape.augment, self._generator)

    def kept(self) -> None:
        self._pair = self._decoded.get(self._rows)
        self._render(self._drawn())

    def tensors(self) -> None:
        self.decode()
        shape = self._shape
        images, _ = render_tensors(
            *self._pair, self._drawn(), shape.view_px, shape.augment.blur_max_px
        )
        normalize_bytes(images)


TOTALS = {
    "two views a decode, bytes": ("two_views", 2),
    "one view a decode, bytes": ("one_view", 1),
    "two views a decode, floats": ("two_views_floats", 2),
    "decoded before, bytes": ("kept", 1),
    "one view a decode, as float tensors": ("tensors", 1),
}
PARTS = ("decode", "draw", "geometry", "geometry_and_color", "floats")


def per_call_s(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def one_core(rounds: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="gcdis-crops-") as folder:
        parts = {}
        for index, (name, shape) in enumerate(SHAPES.items()):
            rows = [crop_rows(ROWS_PER_FILE, shape.longest_px, 10 * index + i) for i in range(2)]
            parts[name] = Parts(shape, write_crops(Path(folder, str(index)), rows))
        small, large = np.zeros((96, 96, 4), np.uint8), np.empty((224, 224, 4), np.uint8)
        for _ in range(rounds):
            us = (
                1e6
                * per_call_s(
                    lambda: [cv2.resize(small, (224, 224), dst=large) for _ in range(BATCH)]
                )
                / BATCH
            )
            found.setdefault(("probe", "probe"), []).append(us)
            for name, part in parts.items():
                part.take()
                for call in [*PARTS, *(call for call, _ in TOTALS.values())]:
                    us = 1e6 * per_call_s(getattr(part, call)) / BATCH
                    found.setdefault((name, call), []).append(us)

    def cell(median: float, best: float) -> str:
        return f"{median:,.0f} ({best:,.0f})"

    def of(name: str, call: str) -> tuple[float, float]:
        """Median and best over rounds, microseconds."""
        return statistics.median(found[name, call]), min(found[name, call])

    print(f"Probe: {cell(*of('probe', 'probe'))} us\n")
    print("Microseconds of one thread\n")
    print("| shape | decode, a crop | draw | geometry | colour | to floats, normalise |")
    print("|---|---|---|---|---|---|")
    for name in SHAPES:
        both, geometry = of(name, "geometry_and_color"), of(name, "geometry")
        color = (both[0] - geometry[0], both[1] - geometry[1])
        values = [of(name, "decode"), of(name, "draw"), geometry, color, of(name, "floats")]
        print(f"| {name} | " + " | ".join(cell(*us) for us in values) + " |")
    print("\nSamples per second and core\n")
    print("| | " + " | ".join(SHAPES) + " |")
    print("|---" * (1 + len(SHAPES)) + "|")
    for text, (call, views) in TOTALS.items():
        cells = [cell(*(1e6 * views / us for us in of(name, call))) for name in SHAPES]
        print(f"| {text} | " + " | ".join(cells) + " |")


# ------------------------------------------------------------------ two consumers


def consume(batches: Iterable[pa.Table], seed: int) -> dict[str, float]:
    """Two views of every crop, thrown away. From the first batch on."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    shape, generator = SHAPES["224 px"], torch.Generator().manual_seed(seed)
    views, began, cpu = 0, 0.0, 0.0
    for batch in batches:
        if views == 0:
            began, cpu = time.time(), time.process_time()
        pair = CropStore(batch, shape.cache_px, budget_mb=0).get(torch.arange(batch.num_rows))
        for _ in range(2):
            draw = draw_views(pair[1], shape.augment, generator, shape.view_px)
            views += len(render_pixels(*pair, draw, shape.view_px, 1.0))
    return dict(views=views, began=began, ended=time.time(), cpu=time.process_time() - cpu)


def read(crops: Table, shards: Iterable[int]) -> Iterator[pa.Table]:
    for index in shards:
        shard = crops.shard(index, COLUMNS)
        yield from (shard.slice(start, BATCH) for start in range(0, shard.num_rows, BATCH))


_START: list[Barrier] = []


def begin_together(barrier: Barrier) -> None:
    _START.append(barrier)


def work_alone(crops: Table, rank: int) -> dict[str, float]:
    _START[0].wait()
    return consume(read(crops, range(rank, crops.num_shards, 2)), rank)


class ReadShard:
    """A step of Ray Data: shard numbers become the rows of shards."""

    def __init__(self, crops: Table) -> None:
        self._crops = crops

    def __call__(self, batch: Any) -> pa.Table:
        return pa.concat_tables(self._crops.shard(int(i), COLUMNS) for i in batch["id"])


class Consumer:
    """A training worker's share of Ray Data's stream."""

    def run(self, shard: Any, rank: int) -> dict[str, float]:
        batches = shard.iter_batches(
            batch_size=BATCH, batch_format="pyarrow", prefetch_batches=8, drop_last=False
        )
        return consume(batches, rank)


def marked_cpu_s(mark: str) -> float:
    """CPU seconds so far of all living processes with the mark in their environment."""
    ticks = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        except OSError:  # it has ended
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def rate(results: list[dict[str, float]]) -> float:
    span = max(r["ended"] for r in results) - min(r["began"] for r in results)
    return sum(r["views"] for r in results) / span


def fed_by_ray(rounds: int, repeats: int) -> None:
    mark = uuid.uuid4().hex
    os.environ[MARK] = mark  # inherited by every process of Ray
    from gcdis_ray.runtime.ray_session import RaySession

    session = RaySession(ComputeConfig.model_validate({"runtime": "ray", "workers": 2}))
    import ray
    import ray.data

    rates: list[tuple[float, float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="gcdis-crops-") as folder:
        files = [crop_rows(ROWS_PER_FILE, SHAPES["224 px"].longest_px, i) for i in range(FILES)]
        crops = write_crops(Path(folder), files, repeats)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        actor = ray.remote(num_cpus=0.5)(Consumer)
        consumers: list[Any] = [actor.remote() for _ in range(2)]
        spawn = multiprocessing.get_context("spawn")
        barrier = spawn.Barrier(2)
        os.environ[MARK] = "none"
        pool = spawn.Pool(2, initializer=begin_together, initargs=(barrier,))
        os.environ[MARK] = mark
        try:
            for number in range(rounds + 1):
                alone = pool.starmap(work_alone, [(crops, 0), (crops, 1)], chunksize=1)
                before, asked = marked_cpu_s(mark), time.time()
                # a block of a few MB: enough for a second of both consumers
                num_blocks = math.ceil(crops.num_shards / SHARDS_PER_BLOCK)
                data = ray.data.range(crops.num_shards, override_num_blocks=num_blocks).map_batches(
                    ReadShard(crops),
                    batch_size=SHARDS_PER_BLOCK,
                    num_cpus=0.5,
                    compute=ray.data.TaskPoolStrategy(size=1),
                )
                split = data.streaming_split(2, equal=True)
                fed = ray.get(
                    [
                        c.run.remote(s, i)
                        for i, (c, s) in enumerate(zip(consumers, split, strict=True))
                    ]
                )
                spent = marked_cpu_s(mark) - before
                first = min(r["began"] for r in fed) - asked
                if number == 0:
                    continue  # processes start and import
                per_cpu = (
                    sum(r["views"] for r in alone) / sum(r["cpu"] for r in alone),
                    sum(r["views"] for r in fed) / spent,
                )
                rates.append((rate(alone), rate(fed), *per_cpu))
                print(
                    f"round {number}: {rates[-1][0]:,.0f} alone, {rates[-1][1]:,.0f} fed by Ray "
                    f"Data ({rates[-1][1] / rates[-1][0]:.2f}); per CPU second {per_cpu[0]:,.0f} "
                    f"and {per_cpu[1]:,.0f} ({per_cpu[1] / per_cpu[0]:.2f}); first batch after "
                    f"{first:.1f} s",
                    flush=True,
                )
        finally:
            pool.terminate()
            pool.join()
            session.close()
    wall = statistics.median(r[1] / r[0] for r in rates)
    per_cpu_ratio = statistics.median(r[3] / r[2] for r in rates)
    print(f"median ratio, fed by Ray Data to alone: {wall:.2f} wall, {per_cpu_ratio:.2f} CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("--rounds", type=int, default=0, help="30, or 5 with --ray")
    parser.add_argument("--ray", action="store_true", help="two consumers, with and without Ray")
    parser.add_argument("--repeats", type=int, default=30, help="of the shards in an epoch")
    args = parser.parse_args()
    if args.ray:
        fed_by_ray(args.rounds or 5, args.repeats)
    else:
        one_core(args.rounds or 30)


if __name__ == "__main__":
    main()
