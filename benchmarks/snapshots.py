"""What snapshots of a trained encoder say of crops: decoded once for all of them, or once for each.

    python benchmarks/snapshots.py                  a small encoder on a CPU
    python benchmarks/snapshots.py --encoder quickstart --longest-px 24 96
    python benchmarks/snapshots.py --encoder paper --device cuda --precision bf16 --crops 2048

Before: every snapshot is opened and asked by itself. After: ``StoredMethod.open_snapshots``. Both
give the same numbers, on a CPU bit by bit. The weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from crop_tables import crop_rows

from gcdis_ray.methods.discovery_model import build_discovery_model
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.heads_config import HeadsConfig
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.methods.trunk import build_encoder, resnet_trunk
from gcdis_ray.store.artifacts import FileRecord, TensorFile

OUTPUTS = 100
ENCODERS = {
    "small": {
        "body": "resnet", "input_px": 32, "blocks": [1, 1, 1], "widths": [16, 32, 64],
        "stem_width": 16, "stem_kernel": 3, "stem_stride": 2,
    },
    "quickstart": {
        "body": "resnet", "input_px": 32, "block": "basic", "blocks": [1, 1, 1],
        "widths": [32, 64, 128], "stem_width": 32, "stem_stride": 2, "mask_input": True,
    },
    "paper": {
        "body": "resnet", "input_px": 224, "block": "bottleneck", "blocks": [3, 4, 6, 3],
        "widths": [256, 512, 1024, 2048], "stem_width": 64, "stem_kernel": 7, "stem_stride": 2,
    },
}  # fmt: skip


class Held:
    """Files in memory."""

    def __init__(self) -> None:
        self._files: list[bytes] = []

    def add(self, tensors: dict[str, torch.Tensor]) -> TensorFile:
        from safetensors.torch import save

        self._files.append(save(tensors))
        return TensorFile(FileRecord(str(len(self._files) - 1), 0, ""), self)

    def read_bytes(self, record: FileRecord) -> bytes:
        return self._files[int(record.path)]

    def read_table(self, record: FileRecord, columns: object) -> pa.Table:
        raise NotImplementedError

    def read_index(self, record: FileRecord) -> pa.Table:
        raise NotImplementedError

    def read_values(self, record: FileRecord, column: str, rows: pa.Table) -> list[bytes | None]:
        raise NotImplementedError


def stored(encoder: str, snapshots: int, precision: str) -> StoredMethod:
    """Of SimGCD, whose network is an encoder and two heads."""
    trunk = resnet_trunk(EncoderConfig.model_validate(ENCODERS[encoder]), None).spec
    heads, files = HeadsConfig.model_validate({}), Held()
    made = []
    for seed in range(snapshots):
        torch.manual_seed(seed)
        network = build_discovery_model(build_encoder(trunk), heads, OUTPUTS)
        made.append(files.add(network.state_dict()))
    spec = {
        "trunk": trunk.model_dump(mode="json"), "heads": heads.model_dump(mode="json"),
        "num_outputs": OUTPUTS, "temperature": 0.1, "precision": precision,
    }  # fmt: skip
    return StoredMethod("simgcd", spec, made[-1], snapshots=dict(enumerate(made)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="small", choices=sorted(ENCODERS))
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--longest-px", type=int, nargs=2, default=(64, 320))
    parser.add_argument("--snapshots", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    method = stored(args.encoder, args.snapshots, args.precision)
    crops = crop_rows(args.crops, tuple(args.longest_px), seed=0)
    alone = [
        StoredMethod(method.name, method.spec, weights).open(args.device)
        for weights in method.snapshots.values()
    ]
    together = method.open_snapshots(args.device)

    def before() -> np.ndarray:
        return np.stack([one.infer(crops).probabilities_NC for one in alone])

    def after() -> np.ndarray:
        return together(crops)

    if args.device == "cpu":
        assert np.array_equal(before(), after())
    seconds: dict[str, list[float]] = {"before": [], "after": []}
    ways: dict[str, Callable[[], np.ndarray]] = {"before": before, "after": after}
    for _ in range(args.repeats):  # in turn, so that other work on the machine hits both alike
        for name, way in ways.items():
            began = time.process_time() if args.device == "cpu" else time.perf_counter()
            way()
            ended = time.process_time() if args.device == "cpu" else time.perf_counter()
            seconds[name].append(ended - began)
    clock = "CPU seconds" if args.device == "cpu" else "seconds"
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    for name, found in middle.items():
        print(f"{name:<8} {found:8.2f} {clock}, {args.crops / found:8.0f} crops/s")
    print(f"{middle['before'] / middle['after']:.2f} times as fast, {args.snapshots} snapshots")


if __name__ == "__main__":
    main()
