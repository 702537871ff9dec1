"""What the workers of a training of discovery send one another in a step.

    python benchmarks/bytes_per_step.py
    python benchmarks/bytes_per_step.py configs/coco_half_lvis.yaml --classes 1203 3929

One step of a config's discovery is computed in this process, on crops of 32 px: nothing that is
sent depends on how large they are. Rows are gathered in the order of parts, and every rank has all
of them in the end; gradients are summed. ``constants`` is what the rows would hold besides if
buffers that no step changes were among them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from discovery_step import OneCrop
from torch import Tensor

from gcdis_ray.config import ComputeConfig
from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk import resnet_trunk
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.buffers import moving_buffers
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.loop import TrainingRun
from gcdis_ray.training.plan import FitPlan

DEFAULT = Path(__file__).resolve().parents[1] / "configs/coco_half_lvis.yaml"


class Counted:
    """An exchange that counts the bytes that it gives."""

    def __init__(self, whole: Any) -> None:
        self._whole, self.num_bytes = whole, 0

    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        found = self._whole.rows(parts)
        self.num_bytes += found.numel() * found.element_size()
        return found


def sent(config: Any, classes: int, folder: str) -> dict[str, float]:
    """MB of a step, by kind."""
    encoder = config.model.encoder.model_copy(update={"input_px": 32})
    model = config.model.model_copy(update={"encoder": encoder})
    training = config.training.over(10**6).model_copy(update={"precision": "fp32"})
    prototypes = config.discovery.prototypes.model_copy(update={"start": "random"})
    discovery = config.discovery.model_copy(update={"prototypes": prototypes})
    crops: Any = OneCrop()
    task = DiscoveryTask(
        Problem(crops, num_known=80, num_outputs=classes, seed=0),
        training,
        model,
        discovery,
        resnet_trunk(encoder, 32),
    )
    storage = open_storage(folder)
    compute = ComputeConfig(runtime="local", checkpoint_every_s=86_400)
    plan = FitPlan("step", "attempt", folder, Attempt(storage, "step", "attempt"), compute)
    checkpoints = StoredCheckpoints(storage, plan.run)
    run = TrainingRun(task, plan, checkpoints, torch.device("cpu"), print)
    exchange: Any = Counted(run.exchange)
    run.exchange = exchange
    run.step(0, [task.batch(0, part) for part in range(training.micro_batches)])
    module, parts = task.objective, training.micro_batches
    moving = sum(buffer.numel() for buffer in moving_buffers(module))
    floats = sum(buffer.numel() for buffer in module.buffers() if buffer.is_floating_point())
    learned = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return {
        "statistics": 4e-6 * parts * moving,
        "keys, targets, losses": 1e-6 * exchange.num_bytes - 4e-6 * parts * moving,
        "rows in all": 1e-6 * exchange.num_bytes,
        "constants": 4e-6 * parts * (floats - moving),
        "gradients": 4e-6 * learned,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default=str(DEFAULT))
    parser.add_argument("--classes", type=int, nargs="+", default=[365, 1203, 3929])
    args = parser.parse_args()
    torch.set_num_threads(1)
    config: Any = load_config(args.config).stages.discover.gcdis
    rows = {}
    for classes in args.classes:
        with tempfile.TemporaryDirectory(prefix="gcdis-bytes-") as folder:
            rows[classes] = sent(config, classes, folder)
    print(f"MB a step, {config.training.micro_batches} parts of ", end="")
    print(f"{config.training.batch_size // config.training.micro_batches} crops\n")
    names = list(next(iter(rows.values())))
    print("| classes | " + " | ".join(names) + " |")
    print("|---" * (1 + len(names)) + "|")
    for classes, found in rows.items():
        print(f"| {classes:,} | " + " | ".join(f"{found[name]:.2f}" for name in names) + " |")


if __name__ == "__main__":
    main()
