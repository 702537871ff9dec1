"""Data steps on Ray Data: a stream of shard numbers through a pool of actors.

An actor opens the task once, then reads, computes and writes one shard per call; only its small
record travels back. A shard whose worker dies is given to another: writing it again replaces its
files by equal ones.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ray
import ray.data

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import GcdisError, WorkersLost
from gcdis_ray.runtime.base import ShardRecord, ShardTask, ShardWriter
from gcdis_ray.runtime.local import device_of, limit_threads, run_shard
from gcdis_ray.runtime.ray_board import STARTED, Board
from gcdis_ray.runtime.ray_session import shortage
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.meter import count, metering


class ShardWorker:
    """One actor of the pool. Called with a batch of one shard number, gives one result: the
    shard's record, or the user's mistake that stopped it; and what it read and wrote."""

    def __init__(
        self,
        task: ShardTask,
        tables: Sequence[Table],
        args: Sequence[Mapping[str, Any]],
        writer: ShardWriter,
        compute: ComputeConfig,
        board: Board,
        step: str,
    ) -> None:
        self._task, self._tables, self._args, self._writer = task, tables, args, writer
        self._compute, self._board, self._step = compute, board, step
        self._run: Callable[..., Any] | None = None
        board.post(STARTED)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = np.empty(len(batch["index"]), dtype=object)
        for place, index in enumerate(batch["index"]):
            with metering() as meter:
                result = self._shard(int(index))
            results[place] = result, meter.amounts()
        return {"result": results}

    def _shard(self, index: int) -> ShardRecord | GcdisError:
        allowed = self._compute.max_failures
        if self._board.count_try(f"{self._step}/{index}") > allowed + 1:
            return WorkersLost(
                f"shard {index} lost its worker {allowed + 1} time(s)",
                where="compute.max_failures",
                fix="look for a shortage of memory and lower compute.data_workers, then run "
                "again: finished shards are kept",
            )
        try:
            if self._run is None:
                self._run = self._task.open(device_of(self._task, self._compute))
                limit_threads(self._compute.threads)
                gc.freeze()  # modules and models stay: no collection need look at them again
            return run_shard(self._run, self._tables, self._args, index, self._writer)
        except GcdisError as error:
            return error  # as a value: it reaches the driver as it is, and is not tried again


def map_shards(
    compute: ComputeConfig,
    task: ShardTask,
    tables: Sequence[Table],
    args: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
    writer: ShardWriter,
    done: Callable[[ShardRecord], None],
    waiting: Callable[[str], None],
    board: Board,
) -> None:
    """Run ``task`` for the shards in ``indices``; see :class:`gcdis_ray.runtime.base.Runtime`."""
    if not indices:
        return
    for handler in logging.getLogger("ray.data").handlers:  # its log file keeps everything
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)
    board.take()  # what was posted in earlier steps
    gpus = min(1.0, compute.gpus_per_worker)  # a network runs on one, whatever training takes
    need = {"CPU": 1.0, "GPU": gpus if device_of(task, compute) == "cuda" else 0.0}
    most = min(compute.data_workers, len(indices))
    data = ray.data.from_items(
        [{"index": index} for index in indices], override_num_blocks=len(indices)
    ).map_batches(
        ShardWorker,
        fn_constructor_args=(
            task,
            tuple(tables),
            tuple(args),
            writer,
            compute,
            board,
            uuid.uuid4().hex,
        ),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(
            min_size=1,
            max_size=most,  # whatever room there is now: nodes may come
            initial_size=min(most, _room(need)),
            max_tasks_in_flight_per_actor=2,  # the next one is there when one is done
        ),
        num_cpus=need["CPU"],
        num_gpus=need["GPU"] or None,
    )
    _drain(data, compute, need, done, waiting, board)


def _room(need: Mapping[str, float]) -> int:
    """Actors that fit into the cluster as it is; one, which waits, if none does."""
    have = ray.cluster_resources()
    room = min(int(have.get(name, 0) // amount) for name, amount in need.items() if amount)
    return max(1, room)


class _Failure:
    """An exception on its way between threads."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _drain(
    data: ray.data.Dataset,
    compute: ComputeConfig,
    need: Mapping[str, float],
    done: Callable[[ShardRecord], None],
    waiting: Callable[[str], None],
    board: Board,
) -> None:
    """Consume results as they come. Ray's iterator runs in a thread, so that this one can notice
    Ctrl-C and tell people when no worker can be had."""
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def consume() -> None:
        try:
            for row in data.iter_rows():
                results.put(row["result"])
            results.put(None)
        except BaseException as error:  # raised again by the thread that waits
            results.put(_Failure(error))

    threading.Thread(target=consume, daemon=True).start()
    started, said = False, time.monotonic()
    while True:
        try:
            result = results.get(timeout=0.5)
        except queue.Empty:
            if not started and time.monotonic() - said > compute.wait_s:
                started = STARTED in board.take()
                if not started:
                    said = time.monotonic()
                    waiting(shortage(need))
            continue
        if result is None:
            return
        if isinstance(result, _Failure):
            raise result.error
        started = True
        result, amounts = result
        count(**amounts)
        if isinstance(result, GcdisError):
            raise result
        done(result)
