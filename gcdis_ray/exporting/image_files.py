"""Image files beside what is said of them: copied, or linked to where they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.run.checks import section
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.store.source import LocalFolder, source_folder

Images = Literal["copy", "link", "none"]


@dataclass(frozen=True)
class CopiedFiles:
    """Args: folder: of the export's images."""

    folder: Path

    def put(self, name: str, uri: str, data: bytes) -> None:
        """Args:
        name: in the export.
        uri: in the data folder.
        data: the file.
        """
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@dataclass(frozen=True)
class LinkedFiles:
    """Args: source: the data folder."""

    folder: Path
    source: LocalFolder

    def put(self, name: str, uri: str, data: bytes) -> None:
        """As :meth:`CopiedFiles.put`.

        Raises:
            DataError: the data folder has no such file any more, or another one.
        """
        there = Path(self.source.root, uri)
        try:
            same = self.source.read(uri) == data
        except OSError as error:
            raise _not_there(there, error.strerror or "it is gone") from error
        if not same:
            raise _not_there(there, "it is not the one that the run has seen")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(there, path)


def _not_there(path: Path, why: str) -> DataError:
    return DataError(
        f"cannot be linked to: {why}", where=str(path), fix="use --images copy, or put it back"
    )


def image_files(run: OpenedRun, images: Images, folder: Path) -> CopiedFiles | LinkedFiles | None:
    """Args: folder: of the export's images.

    Raises:
        ConfigError: links are wanted, and the data is in a bucket.
    """
    if images == "none":
        return None
    if images == "copy":
        return CopiedFiles(folder)
    source = _source(run)
    if not isinstance(source, LocalFolder):
        raise ConfigError(
            f"images in {source.uri} cannot be linked to", where="--images", fix="use copy"
        )
    return LinkedFiles(folder, source)


def _source(run: OpenedRun):
    """The data folder that image files were read from."""
    if run.has("source"):
        told = run.inputs("source").json("source")
        return source_folder(told["uri"], told.get("endpoint"))
    config = section(run.config, run.graph[run.giver("images")])
    return source_folder(config.root, config.endpoint, "stages.ingest.root")  # pyright: ignore[reportAttributeAccessIssue]
