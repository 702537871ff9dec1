"""What the machine offers, as far as a config goes by it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Args: cores: that this process may use."""

    cores: int
    gpus: int

    @classmethod
    def here(cls) -> Machine:
        import torch

        of_process = hasattr(os, "sched_getaffinity")
        cores = len(os.sched_getaffinity(0)) if of_process else os.cpu_count()
        return cls(cores or 1, torch.cuda.device_count())
