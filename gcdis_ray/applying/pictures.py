"""Images with the objects found in them drawn on top, a file each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.applying.trained import SegmentedClass
from gcdis_ray.data.images.image_files import FILE_COLUMNS, ImageFiles
from gcdis_ray.errors import ConfigError
from gcdis_ray.store.artifacts import Artifact, Table
from gcdis_ray.store.storage import Storage

_SIDES_PX = (640, 1600)  # the longer side of a picture is between these
_MAX_BYTES = 1_000_000
_OBJECTS_PER_IMAGE = 8.0  # about so many are shown where no threshold is given
_THRESHOLD_OF = 1000  # images that this threshold is found by


@dataclass(frozen=True)
class PictureRequest:
    """Args:
    number: of images, spread evenly; 0: all.
    display_score: objects below it are not drawn; None: about eight an image are.

    Raises:
        ConfigError: out of range.
    """

    number: int = 0
    display_score: float | None = None

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ConfigError(f"must not be negative (got {self.number})", where="--pictures")
        if self.display_score is not None and not 0 <= self.display_score <= 1:
            raise ConfigError(
                f"must be in [0, 1] (got {self.display_score})", where="--display-score"
            )


def draw_pictures(
    images: Artifact,
    predict: Artifact,
    classes: Sequence[SegmentedClass],
    request: PictureRequest,
    storage: Storage,
    folder: str,
    tell: Callable[[str], None],
) -> int:
    """Write a picture below ``folder`` for every image, and say how many.

    Raises:
        DataError: an image file has changed or is gone. StorageError: nothing can be written.
    """
    from gcdis_ray.report.pictures import drawn_jpeg, drawn_predictions

    listed, predictions = images.table("images"), predict.table("predictions")
    chosen = _spread(listed.num_rows, request.number or listed.num_rows)
    threshold = request.display_score
    if threshold is None:
        threshold = _threshold(images.table("image_index"), predictions, chosen)
    files, drawn = ImageFiles.of(images), 0
    for shard, rows in _places(listed, chosen):
        table = listed.shard(shard, (*FILE_COLUMNS, "height_px", "width_px")).take(pa.array(rows))
        found = predictions.shard(shard)
        for row, file in zip(table.to_pylist(), files.read(table), strict=True):
            mine = found.filter(found["image_id"].to_numpy() == row["image_id"])
            size = (row["height_px"], row["width_px"])
            objects = drawn_predictions(mine, threshold, size, lambda index: classes[index])
            side = int(np.clip(max(size), *_SIDES_PX))
            jpeg = drawn_jpeg(file.pixels(), objects, side, _MAX_BYTES)
            name = picture_name(row["uri"], row["image_id"])
            storage.write(f"{folder}/{name}", jpeg)
            drawn += 1
            tell(f"  pictures     {drawn}/{len(chosen)} images")
    return drawn


def picture_name(uri: str, image_id: int) -> str:
    """Of the picture of an image: its own; behind that of another format its id, so that it is not
    that of another image, and ``.jpg``."""
    return uri if uri.lower().endswith(".jpg") else f"{uri}.{image_id}.jpg"


def _spread(total: int, number: int) -> NDArray[np.int64]:
    """``number`` rows of ``total``, evenly."""
    return np.linspace(0, total - 1, min(number, total)).round().astype(np.int64)


def _places(images: Table, rows_N: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Rows of all shards, rising, as (shard, rows in it)."""
    first = 0
    for shard, record in enumerate(images.shards):
        end = first + (record.rows or 0)
        here = rows_N[np.searchsorted(rows_N, first) : np.searchsorted(rows_N, end)]
        if len(here):
            yield shard, here - first
        first = end


def _threshold(index: Table, predictions: Table, chosen_N: NDArray[np.int64]) -> float:
    """A score above which a readable number of objects remain, over some of the chosen images."""
    from gcdis_ray.report.pictures import display_threshold

    some = chosen_N[_spread(len(chosen_N), _THRESHOLD_OF)]
    scores = [np.zeros(0, np.float32)]
    for shard, rows in _places(index, some):
        ids = index.shard(shard, ["image_id"])["image_id"].to_numpy()[rows]
        found = predictions.shard(shard, ["image_id", "score"])
        scores.append(found["score"].to_numpy()[np.isin(found["image_id"].to_numpy(), ids)])
    return display_threshold(np.concatenate(scores), _OBJECTS_PER_IMAGE * len(some))
