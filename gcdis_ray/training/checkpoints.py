"""Where a training run keeps what a resume needs.

A checkpoint is a folder of files named by its step. It exists from the moment its last file, the
marker, is there; a run killed while saving leaves a folder without one, which nobody reads.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from gcdis_ray.errors import ArtifactError
from gcdis_ray.store.storage import Storage

KEEP = 2
_MARKER = "complete"


class Checkpoints(Protocol):
    """Every rank makes the same calls in the same order."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """Local folder with the files of the newest whole checkpoint, None before the first."""
        ...

    def save(self, step: int, write: Callable[[Path], None] | None) -> None:
        """Keep a checkpoint.

        Args:
            step: number of finished steps.
            write: fills an empty local folder; None on a rank that has nothing to add.
        """
        ...

    def urgent(self) -> bool:
        """Whether to save at once, for a machine is about to be taken away; the same on every rank.
        True once per notice."""
        ...


class StoredCheckpoints:
    """Checkpoints of a run in one process, below ``checkpoints/`` of a storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def _steps(self) -> list[str]:
        """Folders of whole checkpoints, oldest first."""
        files = self._storage.list("checkpoints")
        return [
            name
            for name in self._storage.folders("checkpoints")
            if f"checkpoints/{name}/{_MARKER}" in files
        ]

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        steps = self._steps()
        if not steps:
            yield None
            return
        prefix = f"checkpoints/{steps[-1]}"
        with tempfile.TemporaryDirectory(prefix="gcdis-") as folder:
            for path in self._storage.list(prefix):
                Path(folder, Path(path).name).write_bytes(self._storage.read(path))
            yield Path(folder)

    def save(self, step: int, write: Callable[[Path], None] | None) -> None:
        prefix = f"checkpoints/{step:010d}"
        with tempfile.TemporaryDirectory(prefix="gcdis-") as folder:
            if write is not None:
                write(Path(folder))
            for file in sorted(Path(folder).iterdir()):
                self._storage.write(f"{prefix}/{file.name}", file.read_bytes())
        self._storage.write(f"{prefix}/{_MARKER}", b"")
        whole = self._steps()
        for name in self._storage.folders("checkpoints"):
            if name < whole[-KEEP:][0]:  # older than those kept, half-written ones included
                self._storage.delete(f"checkpoints/{name}")

    def urgent(self) -> bool:
        return False


class Snapshots:
    """Tensors kept at chosen steps until the run ends, below ``snapshots/`` of a storage.

    Written before any checkpoint that counts their step, and equal bytes if a step is redone after
    a resume: so at the end each is there exactly once.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, step: int, data: bytes) -> None:
        self._storage.write(f"snapshots/{step:010d}.safetensors", data)

    def read(self, step: int) -> bytes:
        try:
            return self._storage.read(f"snapshots/{step:010d}.safetensors")
        except FileNotFoundError:
            raise ArtifactError(
                f"snapshot of step {step} is gone",
                where=self._storage.uri,
                fix="remove that folder and run again: the training starts over",
            ) from None
