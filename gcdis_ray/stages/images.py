"""images: which images is a model applied to?

Lists and checks image files that nothing annotates. They stay where they are. ``image_id`` is the
place in the list of names, from 1 on; an image that cannot be used leaves a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from gcdis_ray.config import ENDPOINT, StageConfig
from gcdis_ray.data.images.image_check import ImageLimits
from gcdis_ray.data.images.image_reading import Exif, ImageReader
from gcdis_ray.data.sets.new_images import NewImages, find_images
from gcdis_ray.errors import DataError
from gcdis_ray.runtime.base import ShardOutput
from gcdis_ray.store.artifacts import Size, Workload
from gcdis_ray.store.members import document, table
from gcdis_ray.store.schemas import IMAGE_INDEX, IMAGES, QUARANTINE, schema
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.training.plan import Progress
from gcdis_ray.words import printed

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work
    from gcdis_ray.store.artifacts import Table
    from gcdis_ray.store.members import Inputs

ID = "new_images"
VERSION = 1
TAKES: tuple[str, ...] = ()
GIVES = (
    table("images", IMAGES),
    table("image_index", IMAGE_INDEX),
    table("quarantine", QUARANTINE),
    document("source"),
)
SEEDED = False

SPLIT = "validation"  # those that stage predict looks at
WHERE = "--images (stages.images.images)"
_EXAMPLES = 3
_BYTES_PER_IMAGE = 150  # of a row
_LISTING = schema(image_id=pa.int64(), uri=pa.string())


class Config(StageConfig):
    """Where the images are and what of them can be used."""

    images: str = Field(
        min_length=1,
        description="folder, s3://bucket/prefix, or a .txt file with the name of an image a line",
    )
    endpoint: str | None = Field(None, description=f"of images in a bucket: {ENDPOINT}")
    images_per_shard: int = Field(32, ge=1, le=1024, description="images a worker reads at a time")
    fingerprint: Literal["content", "stat"] = Field(
        "stat",
        description="how changed files are noticed: by size and time of change, or by what they "
        "say, which reads all of them at every command",
    )
    max_image_bytes: int = Field(
        64_000_000, ge=1, le=1_000_000_000, description="larger files are quarantined"
    )
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=89_000_000, description="larger images are quarantined"
    )
    exif: Literal["apply", "ignore"] = Field(
        "apply", description="turns that cameras note in image files: done, or pixels as stored"
    )

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"images", "endpoint", "fingerprint"})  # see source

    def find(self) -> NewImages:
        """Raises: DataError, StorageError: see
        :func:`~gcdis_ray.data.sets.new_images.find_images`."""
        return find_images(self.images, self.endpoint, WHERE)


def source(config: Config, show: Callable[[Progress], None] = lambda progress: None) -> str:
    """Fingerprint of the images, and where they are: later stages look for them there."""
    found = config.find()
    place = f"{found.folder.uri} at {config.endpoint}" if config.endpoint else found.folder.uri
    return f"{found.digest(config.fingerprint, show, config.images)} {place}"


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """A row per image; all files are read."""
    found, num_bytes, sample = config.find(), 0, 0
    for row in range(0, len(found), max(1, len(found) // 100)):
        state = found.folder.state(found.names[row].as_py())
        num_bytes += state.num_bytes if state else 0
        sample += 1
    read = num_bytes * len(found) // sample
    rows = len(found)
    return Size(rows, _BYTES_PER_IMAGE * rows, read, splits={SPLIT: rows})


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """All images are read and checked."""
    return Workload(rows=made.rows)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    found = config.find()
    for kind, number in found.left_out.counts.items():
        work.count(f"files_left_out: {kind}", number)
    work.count("listed_again", found.repeated)
    tables = work.map_shards(
        ReadImages(
            found.folder,
            ImageLimits(config.max_image_bytes, config.max_image_pixels),
            config.exif,
        ),
        [_lay_aside(found, config.images_per_shard, work)],
        gives=("images", "image_index", "quarantine"),
        unit="image shards",
    )
    work.count("images_quarantined", tables["quarantine"].num_rows)
    if not tables["images"].num_rows:
        rows = tables["quarantine"].shard(0).slice(0, _EXAMPLES).to_pylist()
        shown = "; ".join(f"{printed(row['uri'])}: {row['reason']}" for row in rows)
        raise DataError(
            f"none of {len(found):,} files can be used, such as {shown}",
            where=config.images,
            fix="give JPEG, PNG or WebP files",
        )
    work.write_json("source", {"uri": found.folder.uri, "endpoint": config.endpoint})


def _lay_aside(found: NewImages, images_per_shard: int, work: Work) -> Table:
    """The files of every shard, by the order of names."""
    spool = work.spool("listing", _LISTING)
    for start in range(0, len(found), images_per_shard):
        uris = found.names.slice(start, images_per_shard).cast(pa.string())
        ids = np.arange(start + 1, start + 1 + len(uris), dtype=np.int64)
        spool.add(pa.table([pa.array(ids), uris], schema=_LISTING))
    return spool.close()


@dataclass(frozen=True)
class ReadImages:
    """Reads and checks a shard's image files. Implements ShardTask."""

    folder: SourceFolder
    limits: ImageLimits
    exif: Exif

    def open(self, device: str) -> Callable[..., ShardOutput]:
        return self.read

    def read(self, index: int, listing: pa.Table) -> ShardOutput:
        """Args: listing: files to read."""
        reader = ImageReader(self.folder, self.limits, "uri", self.exif)
        rows: list[dict[str, Any]] = []
        turned_down: list[dict[str, Any]] = []
        counts = Counter[str]()
        for row in listing.to_pylist():
            image = {**row, "height_px": None, "width_px": None, "split": SPLIT}
            try:
                rows.append(reader.read(image, counts))
            except DataError as error:
                turned_down.append({"split": SPLIT, "uri": row["uri"], "reason": error.what})
        images = pa.Table.from_pylist(rows, IMAGES)
        tables = {
            "images": images,
            "image_index": images.select(IMAGE_INDEX.names),
            "quarantine": pa.Table.from_pylist(turned_down, QUARANTINE),
        }
        return ShardOutput(tables, counts)
