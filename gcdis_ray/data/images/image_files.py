"""The encoded files of images: out of the images table, or from where ingest left them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gcdis_ray.data.images.image_check import decode_rgb
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder, source_folder
from gcdis_ray.words import cut

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from gcdis_ray.store.artifacts import Table
    from gcdis_ray.store.members import Members

FILE_COLUMNS = ("image_id", "uri", "bytes", "sha256", "turn")  # what it takes to read a file
_READERS = 8  # files read at a time from a source


def listed_images(inputs: Members) -> Table:
    """The images without their files, shard by shard as ``images``: cheap to read."""
    return inputs.table("image_index" if inputs.has("image_index") else "images")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image, encoded. All that see pixels see these.

    Args:
        data: the file.
        turn: that ingest decided on, see :mod:`gcdis_ray.data.images.turns`.
        uri: its name, for messages.
    """

    data: bytes
    turn: int
    uri: str

    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, of the size that the images table says.

        Raises:
            DataError: the file does not decode; names it.
        """
        try:
            return decode_rgb(self.data, self.turn)
        except DataError as error:
            raise DataError(
                f"cannot be decoded: {error.what}",
                where=cut(self.uri),
                fix="the versions of opencv-python-headless and pillow must be those of ingest; "
                "if they are, mend the file and start over from ingest",
            ) from error


@dataclass(frozen=True)
class ImageFiles:
    """Reads the files of rows of the images table. Pickles to workers.

    Args:
        folder: the source, for rows whose ``bytes`` are null; none if the table holds all.
    """

    folder: SourceFolder | None = None

    @staticmethod
    def of(inputs: Members) -> ImageFiles:
        """Workers read from the service that is meant here, whatever their environment says."""
        if not inputs.has("source"):
            return ImageFiles()
        source = inputs.json("source")
        return ImageFiles(source_folder(source["uri"], source.get("endpoint")))

    def read(self, images: pa.Table) -> list[ImageFile]:
        """The file of every row.

        Args:
            images: rows with :data:`FILE_COLUMNS`.

        Raises:
            DataError: a file is gone from its source, or is not the one that ingest read.
            StorageError: the source cannot be reached.
        """
        rows = images.select(FILE_COLUMNS).to_pylist()
        if all(row["bytes"] is not None for row in rows):
            return [ImageFile(row["bytes"], row["turn"], row["uri"]) for row in rows]
        with ThreadPoolExecutor(_READERS) as pool:
            return _results(pool.submit(copy_context().run, self._one, row) for row in rows)

    def _one(self, row: Mapping[str, Any]) -> ImageFile:
        if row["bytes"] is not None:
            return ImageFile(row["bytes"], row["turn"], row["uri"])
        if self.folder is None:
            raise DataError(
                "the images table neither holds the image files nor says where they are",
                where="table 'images'",
                fix="run ingest again",
            )
        where = f"{self.folder.uri}/{cut(row['uri'])}"
        try:
            data = self.folder.read(row["uri"])
        except OSError as error:
            raise _error(where, f"cannot be read ({error.strerror or 'it is gone'})") from error
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise _error(where, "the file has changed: ingest ran on other bytes")
        return ImageFile(data, row["turn"], row["uri"])


def _error(where: str, what: str) -> DataError:
    return DataError(
        what,
        where=where,
        fix="put the file back as it was, or start over from ingest with the new data",
    )


def _results(futures: Iterable[Any]) -> list[Any]:
    return [future.result() for future in list(futures)]
