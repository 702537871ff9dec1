"""The encoded files of images: out of the images table, or from where ingest left them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gcdis_ray.errors import DataError
from gcdis_ray.source import SourceFolder, open_source
from gcdis_ray.words import cut

if TYPE_CHECKING:
    import pyarrow as pa

    from gcdis_ray.artifacts import Artifact, Table

FILE_COLUMNS = ("image_id", "uri", "bytes", "sha256")  # what it takes to read an image's file
_READERS = 8  # files read at a time from a source


def listed_images(ingest: Artifact) -> Table:
    """The images without their files, shard by shard as ``images``: cheap to read."""
    return ingest.table("image_index" if ingest.has("image_index") else "images")


@dataclass(frozen=True)
class ImageFiles:
    """Reads the files of rows of the images table. Pickles to workers.

    Args:
        root: URI of the source, for rows whose ``bytes`` are null; none if the table holds all.
    """

    root: str | None = None

    @staticmethod
    def of(ingest: Artifact) -> ImageFiles:
        return ImageFiles(ingest.json("source")["uri"] if ingest.has("source") else None)

    @cached_property
    def _source(self) -> SourceFolder:
        if self.root is None:
            raise DataError(
                "the images table neither holds the image files nor says where they are",
                where="table 'images'",
                fix="run ingest again",
            )
        return open_source(self.root)

    def read(self, images: pa.Table) -> list[bytes]:
        """The file of every row.

        Args:
            images: rows with :data:`FILE_COLUMNS`.

        Raises:
            DataError: a file is gone from its source, or is not the one that ingest read.
            StorageError: the source cannot be reached.
        """
        rows = images.select(FILE_COLUMNS).to_pylist()
        if all(row["bytes"] is not None for row in rows):
            return [row["bytes"] for row in rows]
        _ = self._source  # opened once, by one thread
        with ThreadPoolExecutor(_READERS) as pool:
            return _results(pool.submit(copy_context().run, self._one, row) for row in rows)

    def _one(self, row: Mapping[str, Any]) -> bytes:
        if row["bytes"] is not None:
            return row["bytes"]
        try:
            data = self._source.read(row["uri"])
        except OSError as error:
            raise self._error(row, f"cannot be read ({error.strerror or 'it is gone'})") from error
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise self._error(row, "the file has changed: ingest ran on other bytes")
        return data

    def _error(self, row: Mapping[str, Any], what: str) -> DataError:
        return DataError(
            what,
            where=f"{self.root}/{cut(row['uri'])}",
            fix="put the file back as it was, or start over from ingest with the new data",
        )


def _results(futures: Iterable[Any]) -> list[Any]:
    return [future.result() for future in list(futures)]
