"""Where a training run keeps what a resume needs, below the scratch of its key::

    <run>/step-0000000040/              a checkpoint
    snapshots/<step>-<SHA-256>.safetensors

A checkpoint is a folder of files named by its step. It exists from the moment its last file, the
marker, is there; a run killed while saving leaves a folder without one, which nobody reads.

Two drivers may be alive under one key (a partition, a retry), and on GPUs their weights differ. So
nobody ever writes where another does: each has a folder of checkpoints of its own, and a snapshot
is named by its bytes. A resume reads the newest whole checkpoint, whoever wrote it; that names its
snapshots.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from gcdis_ray.errors import ArtifactError
from gcdis_ray.store.storage import Storage

KEEP = 2
_MARKER = "complete"


def step_folder(step: int) -> str:
    """Name of the folder of a checkpoint after ``step`` steps."""
    return f"step-{step:010d}"


def mark_whole(scratch: Storage, folder: str) -> None:
    """Every file of this checkpoint is there."""
    scratch.write(f"{folder}/{_MARKER}", b"")


def newest_whole(scratch: Storage) -> str | None:
    """Folder of the whole checkpoint of the most steps, of any run; None before the first."""
    paths = (path.rpartition("/") for path in scratch.list(""))
    whole = [folder for folder, _, name in paths if name == _MARKER and "/step-" in folder]
    return max(whole, key=lambda folder: (folder.rpartition("/")[2], folder), default=None)


class Checkpoints(Protocol):
    """Every rank makes the same calls in the same order."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """Local folder with the files of the newest whole checkpoint, None before the first.

        Raises FileNotFoundError where the run that wrote it, alive, removes it at this moment.
        """
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
    """Checkpoints of a run in one process.

    Args:
        scratch: that of the key.
        run: folder below it, of this run alone.
    """

    def __init__(self, scratch: Storage, run: str) -> None:
        self._storage, self._run = scratch, run

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        prefix = newest_whole(self._storage)
        if prefix is None:
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="gcdis-") as folder:
            for path in self._storage.list(prefix):
                Path(folder, Path(path).name).write_bytes(self._storage.read(path))
            yield Path(folder)

    def save(self, step: int, write: Callable[[Path], None] | None) -> None:
        prefix = f"{self._run}/{step_folder(step)}"
        with tempfile.TemporaryDirectory(prefix="gcdis-") as folder:
            if write is not None:
                write(Path(folder))
            for file in sorted(Path(folder).iterdir()):
                self._storage.write(f"{prefix}/{file.name}", file.read_bytes())
        mark_whole(self._storage, prefix)
        files, names = self._storage.list(self._run), self._storage.folders(self._run)
        whole = [name for name in names if f"{self._run}/{name}/{_MARKER}" in files]
        for name in names:
            if name < whole[-KEEP:][0]:  # older than those kept, half-written ones included
                self._storage.delete(f"{self._run}/{name}")

    def urgent(self) -> bool:
        return False


class Snapshots:
    """Tensors that one training kept at chosen steps until it ends.

    Written before any checkpoint that counts their step. A step that is redone after a resume gives
    equal bytes on a CPU, so there is one file of it; on a GPU there may be two, of which the
    training that goes on knows its own.
    """

    def __init__(self, scratch: Storage) -> None:
        self._storage = scratch
        self._digests: dict[int, str] = {}  # step -> SHA-256

    def state(self) -> dict[int, str]:
        """For a checkpoint."""
        return dict(self._digests)

    def load_state(self, state: Mapping[int, str]) -> None:
        self._digests = dict(state)

    def write(self, step: int, data: bytes) -> None:
        self._digests[step] = hashlib.sha256(data).hexdigest()
        self._storage.write(self._path(step), data)

    def _path(self, step: int) -> str:
        return f"snapshots/{step:010d}-{self._digests[step]}.safetensors"

    def read(self, step: int) -> bytes:
        """The bytes that this training wrote after ``step`` steps.

        Raises:
            ArtifactError: they are gone, or changed.
        """
        try:
            data = self._storage.read(self._path(step))
        except FileNotFoundError:
            data = None
        if data is None or hashlib.sha256(data).hexdigest() != self._digests[step]:
            raise ArtifactError(
                f"snapshot of step {step} is {'gone' if data is None else 'changed'}",
                where=self._storage.uri,
                fix="remove that folder and run again: the training starts over",
            )
        return data
