"""torch's own settings for the time of a training run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_settings(threads: int, device: torch.device, *, same_shapes: bool) -> Iterator[None]:
    """Args:
    threads: of torch's operators: results depend on them, so the config says how many.
    same_shapes: every step has tensors of the same shapes, so that trying all of cuDNN's
        algorithms once is worth it. On a GPU only.
    """
    earlier, tried = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = same_shapes
    try:
        yield
    finally:
        torch.set_num_threads(earlier)
        torch.backends.cudnn.benchmark = tried
