"""What a run tells Ray's metrics, which Ray hands on to Prometheus as ``ray_<name>``.

Each process that works makes its own; Ray adds the node and sums nothing: rates and sums are the
business of whoever asks Prometheus. Names, units and tags are promised in ``docs/interface.md``.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from gcdis_ray.runtime.base import ShardRecord, ShardTask
from gcdis_ray.training.plan import Progress

_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


class ShardMetrics:
    """Of a worker of a data step."""

    def __init__(self, task: ShardTask) -> None:
        self._tags = {"task": type(task).__name__}
        self._rows = Counter(
            "gcdis_rows", "Rows written by data steps, by member.", tag_keys=("member",)
        )
        self._read = Counter("gcdis_read_bytes", "Bytes read by data steps.", tag_keys=("task",))
        self._written = Counter(
            "gcdis_written_bytes", "Bytes written by data steps.", tag_keys=("task",)
        )
        self._seconds = Histogram(
            "gcdis_shard_seconds", "Seconds per shard.", boundaries=_SECONDS, tag_keys=("task",)
        )

    def done(self, record: ShardRecord, amounts: Mapping[str, int], seconds: float) -> None:
        """A shard is written.

        Args:
            amounts: ``read_bytes`` and ``written_bytes``.
        """
        for member, file in record.files.items():
            if file.rows:  # a counter refuses to be raised by nothing
                self._rows.inc(file.rows, {"member": member})
        for counter, name in ((self._read, "read_bytes"), (self._written, "written_bytes")):
            if amounts[name]:
                counter.inc(amounts[name], self._tags)
        self._seconds.observe(seconds, self._tags)


class QueueMetrics:
    """Of the driver of a data step: how many shards are still to come."""

    def __init__(self, task: ShardTask, shards: int) -> None:
        self._tags, self._left = {"task": type(task).__name__}, shards
        self._gauge = Gauge(
            "gcdis_shards_left", "Shards of a data step that are not done.", tag_keys=("task",)
        )
        self._gauge.set(self._left, self._tags)

    def done(self) -> None:
        self._left -= 1
        self._gauge.set(self._left, self._tags)


class TrainingMetrics:
    """Of rank 0 of a training."""

    def __init__(self, name: str) -> None:
        """Args: name: of the training, ``<stage>-<key>``."""
        self._tags = {"training": name}

        def gauge(what: str, text: str, *more: str) -> Gauge:
            return Gauge(f"gcdis_training_{what}", text, tag_keys=("training", *more))

        self._steps = gauge("steps", "Finished optimiser steps.")
        self._loss = gauge("loss", "The newest value of all that a training logs.", "loss")
        self._step_s = gauge("step_seconds", "Seconds per optimiser step.")
        self._samples = gauge("samples_per_second", "Samples learned from, over all workers.")
        self._wait = gauge("data_wait", "Share of the time that rank 0 waits for its batches.")
        self._memory = gauge("gpu_memory_bytes", "Most memory taken of rank 0's GPU.")
        self._use = gauge("gpu_use", "Share of the time that rank 0's GPU is busy.")

    def tell(self, progress: Progress) -> None:
        """Where it is, and how fast it came there."""
        self._steps.set(progress.done, self._tags)
        for name, value in progress.losses.items():
            self._loss.set(value, {**self._tags, "loss": name})
        if (pace := progress.pace) is None:
            return
        self._step_s.set(pace.step_s, self._tags)
        self._samples.set(pace.samples_per_s, self._tags)
        self._wait.set(pace.data_wait, self._tags)
        if pace.gpu_memory_bytes:
            self._memory.set(pace.gpu_memory_bytes, self._tags)
        if pace.gpu_use is not None:
            self._use.set(pace.gpu_use, self._tags)
