"""One training step at a time of the code published with the paper, for comparison only.

Nothing of that code is kept here: its own ``train.train`` runs, unchanged, in a thread, and this
module feeds it batches one by one. What is needed to import it today, without its data, is stubbed,
and :data:`STUBS` says what.
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STUBS = (
    "module augmentations (absent from the repository), torch._six (gone from torch) and loguru "
    "(unused here) are empty stand-ins",
    "Tensor.cuda does nothing without a GPU, tqdm shows no bar, printed lines are swallowed",
    "its queues are filled by one call with random rows instead of thousands of forwards",
)


class PublishedStep:
    """``step()`` runs exactly one iteration of the published training loop.

    Args:
        folder: a checkout of the published repository.
        batch: samples per step.
        labels, masks, images: (N,) class index or -1; (N, S, S) in {0, 1}; (N, 3, S, S).
    """

    def __init__(self, folder: Path, images: Tensor, masks: Tensor, labels: Tensor) -> None:
        train, resnet = _import(folder)
        self._device = images.device
        train.device, train.tqdm = self._device, lambda batches: batches
        build = lambda: resnet.ResNet50(  # noqa: E731 - as in its main block
            num_classes=1, feat_dim=2048, mlp_out_dim=1200, num_mlp_layers=3
        ).to(self._device)
        with contextlib.redirect_stdout(io.StringIO()):
            student, teacher = build(), build().requires_grad_(False)
        self._loader = _OneByOne(images, masks, labels, train.queue_size)
        arguments = types.SimpleNamespace(
            lr=0.1, momentum=0.9, weight_decay=5e-5, fp16=False, epochs=1, sup_weight=0.35,
            logger=logging.getLogger("published"),
        )  # fmt: skip
        filler = _Filler(teacher, train.queue_size)
        self._thread = threading.Thread(
            target=self._run,
            args=(train.train, student, filler, self._loader, None, arguments, range(65536)),
            kwargs=dict(threads=torch.get_num_threads()),
            daemon=True,
        )
        self._started = False

    def _run(self, train: Any, *arguments: Any, threads: int) -> None:
        torch.set_num_threads(threads)  # OpenMP counts per thread
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                train(*arguments)
        except _Over:
            pass
        except BaseException as error:
            self._loader.failure = error
            self._loader.asks.release()

    def step(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            if not self._started:
                self._started = True
                self._thread.start()
                self._loader.wait()  # its queues are full, it asks for the first batch
            self._loader.give()
            self._loader.wait()

    def close(self) -> None:
        self._loader.over = True
        if self._started:
            self._loader.give()
            self._thread.join()


class _Over(Exception):
    """Ends the published loop."""


class _OneByOne:
    """A data loader: first pass one batch that fills the queues, then a batch per permission."""

    def __init__(self, images: Tensor, masks: Tensor, labels: Tensor, queue_size: int) -> None:
        self._queue_size, self._fills = queue_size, True
        rows = torch.arange(len(images))
        self._batch = {
            "image": images,
            "semseg": masks,
            "meta": {
                "label": labels,
                "mask": (labels >= 0).long(),
                "index": rows,
                "score": torch.ones_like(rows),
            },
        }
        self.asks, self._allowed = threading.Semaphore(0), threading.Semaphore(0)
        self.over = False
        self.failure: BaseException | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self._fills:
            self._fills = False
            labels = self._batch["meta"]["label"]
            many = labels.repeat(self._queue_size // len(labels) + 1)[: self._queue_size]
            yield {
                "augmented": torch.zeros(self._queue_size, 1),
                "meta": {"label": many, "mask": (many >= 0).long()},
            }
            return
        while True:
            self.asks.release()
            self._allowed.acquire()
            if self.over:
                raise _Over
            # the loop writes a score into meta: a fresh dict per step
            yield {**self._batch, "meta": dict(self._batch["meta"])}

    def give(self) -> None:
        self._allowed.release()

    def wait(self) -> None:
        self.asks.acquire()
        if self.failure is not None:
            raise RuntimeError("the published code failed") from self.failure


class _Filler(nn.Module):
    """The momentum model, but random rows for the batch that fills the queues."""

    def __init__(self, model: nn.Module, queue_size: int) -> None:
        super().__init__()
        self.model, self._queue_size = model, queue_size

    def forward(self, images: Tensor) -> Any:
        if images.ndim == 4:
            return self.model(images)
        keys = nn.functional.normalize(torch.randn(self._queue_size, 256), dim=1)
        cosines = 0.1 * torch.randn(self._queue_size, 1200)
        return keys.to(images.device), cosines.to(images.device), []


def _import(folder: Path) -> tuple[Any, Any]:
    if not (folder / "train.py").is_file():
        raise SystemExit(f"{folder}: no train.py; give a checkout of the published repository")
    for name, members in {
        "augmentations": {"get_transform": None},
        "torch._six": {"string_classes": (str, bytes)},
        "loguru": {"logger": logging.getLogger("published")},
    }.items():
        stub = types.ModuleType(name)
        stub.__dict__.update(members)
        sys.modules.setdefault(name, stub)
    if not torch.cuda.is_available():
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    sys.path[:0] = [str(folder), str(folder / "data")]
    state, generator = torch.random.get_rng_state(), sys.path[:]
    try:
        import resnet  # type: ignore[import-not-found]
        import train  # type: ignore[import-not-found]
    finally:
        sys.path[:] = [path for path in generator if not path.startswith(str(folder))]
        torch.random.set_rng_state(state)  # importing it seeds every generator
    return train, resnet
