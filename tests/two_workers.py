"""Two processes of one training run on this machine, without Ray."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def run_in_two(worker: Callable[..., None], folder: Path, *args: Any) -> None:
    """Call ``worker(rank, folder, *args)`` in two processes that gloo joins."""
    torch.multiprocessing.spawn(_joined, (worker, str(folder), *args), nprocs=2)


def _joined(rank: int, worker: Callable[..., None], folder: str, *args: Any) -> None:
    faulthandler.enable()  # a crash of native code says where
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    worker(rank, folder, *args)
    dist.barrier()  # neither closes connections that the other still reads from
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)  # as Ray's workers end: native threads may abort a Python that takes itself apart
