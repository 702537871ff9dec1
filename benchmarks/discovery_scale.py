"""Discovery training on 10 thousand to a million crops: steps per second, set-up, memory.

    python benchmarks/discovery_scale.py
    python benchmarks/discovery_scale.py --crops 10000 1000000 --cache-mb 0 --rounds 1

The crops are synthetic and share files (a table may name a file more than once), so that a million
of them are made in seconds; they are read, hashed and kept one by one all the same. Every figure
comes from a process of its own that does what a training worker does, with a small encoder:
``setup``, then steps with their batches. Times are CPU seconds of one thread; a step is the median
of ``--steps``. Memory is the peak of RssAnon, the pages a process cannot give back; what lies in
the mapped scratch file is given beside it. The scratch file lies in the temporary folder
(``TMPDIR``), 1.6 kB a crop here. Linux only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from crop_tables import crop_rows, read_crops, write_crops
from peak_memory import PeakMemory

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk import resnet_trunk

FILES, ROWS_PER_FILE, BATCH = 4, 500, 96
MODEL = {
    "encoder": {
        "body": "resnet", "input_px": 32, "blocks": [1, 1], "widths": [16, 32], "stem_width": 16,
    },
    "attention": {"pools": [4, 3]},
    "heads": {"projection_hidden": 64, "projection_dim": 64},
}  # fmt: skip


class AllParts:
    """The exchange of a single worker."""

    def rows(self, parts: Any) -> torch.Tensor:
        return torch.cat([part.detach() for part in parts])


def measure(folder: str, num_crops: int, cache_mb: int, steps: int) -> dict[str, float]:
    """Set-up and steps of a training worker in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    crops = read_crops(Path(folder), num_crops // (ROWS_PER_FILE * FILES))
    discovery = {
        "queue_size": 4096,
        "losses": {"clustering_from": 0.5},
        "prototypes": {"start": "kmeans"},
    }
    model = ModelConfig.model_validate(MODEL)
    task = DiscoveryTask(
        Problem(crops, num_known=10, num_outputs=30, seed=0),
        TrainingConfig(steps=10**6, batch_size=BATCH, micro_batches=1, lr=0.01),
        model,
        DiscoveryConfig.model_validate(discovery),
        resnet_trunk(model.encoder, None),
        cache_mb=cache_mb,
    )
    memory = PeakMemory()
    before_mb = memory.now_mb("RssAnon")
    memory.start()
    began = time.process_time()
    module = task.setup(torch.device("cpu"))
    setup_s = time.process_time() - began
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    times, exchange = [], AllParts()
    for step in range(steps + 5):  # the first few warm up, shuffle the first lap, ...
        began = time.process_time()
        (part,) = task.prepare([task.batch(step, 0)], exchange)
        optimizer.zero_grad()
        module(part)["total"].backward()
        optimizer.step()
        task.after_step(step, exchange)
        times.append(time.process_time() - began)
    visits = torch.ones(num_crops, dtype=torch.int64)
    heads = {"sum": torch.rand(num_crops), "visits": visits, "temperatures": torch.rand(num_crops)}
    task.temperatures.load_state(heads)  # as if an epoch had passed
    began = time.process_time()
    task.temperatures.table.assign()  # what an epoch costs once: temperatures, and the next shuffle
    task.batches.sampler._streams[0][0].take(num_crops, 1)
    task.batches.sampler._streams[1][0].take(num_crops, 1)
    epoch_s = time.process_time() - began
    memory.stop()
    return {
        "setup_s": setup_s,
        "step_ms": 1000 * statistics.median(times[5:]),
        "epoch_ms": 1000 * epoch_s,
        "anonymous_mb": memory.peak_mb - before_mb,
        "file_mb": memory.file_mb,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("--crops", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--cache-mb", type=int, nargs="+", default=[0, 2000])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "CROPS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        folder, crops = args.worker
        print(json.dumps(measure(folder, int(crops), args.cache_mb[0], args.steps)))
        return
    found: dict[tuple[int, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="gcdis-scale-") as folder:
        write_crops(Path(folder), [crop_rows(ROWS_PER_FILE, (40, 56), i) for i in range(FILES)])
        for _ in range(args.rounds):
            for cache_mb in args.cache_mb:
                for crops in args.crops:
                    more = ["--steps", str(args.steps), "--cache-mb", str(cache_mb)]
                    worker = [sys.executable, __file__, "--worker", folder, str(crops), *more]
                    output = subprocess.run(worker, check=True, capture_output=True, text=True)
                    result = json.loads(output.stdout)
                    print(crops, cache_mb, json.dumps(result), file=sys.stderr)
                    found.setdefault((cache_mb, crops), []).append(result)
    print("| cache_mb | crops | steps/s | set-up s | us/crop | epoch end ms | peak anonymous MB |")
    print("|---|---|---|---|---|---|---|")
    for (cache_mb, crops), results in found.items():
        r = {name: statistics.median(one[name] for one in results) for name in results[0]}
        print(
            f"| {cache_mb} | {crops:,} | {1000 / r['step_ms']:.1f} | {r['setup_s']:.2f} "
            f"| {r['setup_s'] / crops * 1e6:.1f} | {r['epoch_ms']:.0f} | {r['anonymous_mb']:.0f} |"
        )


if __name__ == "__main__":
    main()
