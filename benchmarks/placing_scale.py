"""Placing of ten thousand to a million crops: seconds and memory.

    python benchmarks/placing_scale.py
    python benchmarks/placing_scale.py --crops 1000000 --splits 1

The embeddings are synthetic and share files (a table may name a file more than once), so that a
million of them are made in seconds; they are read and placed one by one all the same. Half of the
classes are known, a tenth of the crops of these are labeled. Every figure comes from a process of
its own, one thread on the local runtime. Memory is the peak of RssAnon, the pages a process cannot
give back. ``right`` is the share of unlabeled crops in a cluster whose majority is of their class.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from peak_memory import PeakMemory

from gcdis_ray.files.arrow_columns import as_lists
from gcdis_ray.methods.placing import place
from gcdis_ray.methods.placing_config import PlacingConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.run.work import local_work
from gcdis_ray.stages import discover
from gcdis_ray.store.artifacts import Artifact, Manifest, Table
from gcdis_ray.store.members import schemas_of
from gcdis_ray.store.schemas import EMBEDDINGS
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage, encode_table, file_record

FILES, ROWS, DIMS, CLASSES = 5, 2000, 256, 100


def vectors(file: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes (ROWS,) on a long tail, and unit rows (ROWS, DIMS)."""
    means = np.random.default_rng(0).normal(size=(CLASSES, DIMS)) / DIMS**0.5
    rng = np.random.default_rng(file + 1)
    share = 1 / np.arange(1, CLASSES + 1) ** 0.5
    classes = rng.choice(CLASSES, size=ROWS, p=share / share.sum())
    rows = means[classes] + 0.9 * rng.normal(size=(ROWS, DIMS)) / DIMS**0.5 + 0.1
    return classes, (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def measure(folder: str, num_crops: int, splits: int) -> dict[str, float]:
    torch.set_num_threads(1)
    storage, records, classes = LocalStorage(folder), [], []
    for file in range(FILES):
        of, rows = vectors(file)
        told = (of % 2 == 0) & (np.arange(ROWS) % 10 == 0)
        labels = np.where(told, of // 2, -1).astype(np.int32)
        columns = [np.arange(ROWS) + file * ROWS, labels, as_lists(rows)]
        data = encode_table(pa.table(columns, schema=EMBEDDINGS))
        storage.write(f"bench/embeddings/{file}.parquet", data)
        records.append(file_record(f"embeddings/{file}.parquet", data, ROWS))
        classes.append(of)
    repeats = num_crops // (FILES * ROWS)
    opener = ArtifactOpener(storage, "bench", {"embeddings": EMBEDDINGS})
    files = {"embeddings": records * repeats}
    space = Artifact(Manifest("embed", "key", 1, {}, {}, None, None, files), opener)
    problem = Problem(
        crops=Table("crops", (), opener), num_known=CLASSES // 2, num_outputs=CLASSES, seed=0,
        placing=PlacingConfig.model_validate({"splits": splits}), space=space,
    )  # fmt: skip
    memory = PeakMemory()
    memory.start()
    began = time.monotonic()
    placed_N = place(problem, local_work(storage, schemas_of(discover.GIVES)))
    seconds = time.monotonic() - began
    memory.stop()
    class_N = np.tile(np.concatenate(classes), repeats)
    pairs = np.zeros((int(placed_N.max()) + 1, CLASSES))
    np.add.at(pairs, (placed_N, class_N), 1)
    right = pairs.max(axis=1).sum() / num_crops
    return {"seconds": seconds, "memory_mb": memory.peak_mb, "right": right}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--crops", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--splits", type=int, default=8, help="ways to withhold labels")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(str(args.one), args.crops[0], args.splits)))
        return
    print("| crops | seconds | memory, MB | right |\n|---|---|---|---|")
    for crops in args.crops:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--one", folder, "--crops", str(crops)]
            command += ["--splits", str(args.splits)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {crops:,} | {found['seconds']:.0f} | {found['memory_mb']:.0f} | "
            f"{found['right']:.3f} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
