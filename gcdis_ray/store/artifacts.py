"""What stages hand to one another: keys, manifests, and typed handles to read them.

An *artifact* is the committed output of one stage: named tables (Parquet, sharded), tensors
(safetensors) and small JSON documents, listed in one manifest. Nothing in it can run code.

Tables of one pipeline are *co-sharded by image*: shard ``i`` of ``instances``, ``proposals``,
``instance_masks``, ``crops``, ``embeddings``, ``assignments``, ``partition``, ``pseudo_labels``
and ``predictions`` holds rows that belong to the images in shard ``i`` of ``images``. A shard can
be empty; none is ever missing.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from gcdis_ray.errors import ArtifactError

if TYPE_CHECKING:
    import torch

_READERS = 8  # of a column: shards read at a time


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def artifact_key(
    stage: str,
    version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    seed: int | None,
    source: str | None = None,
) -> str:
    """Name of the artifact a stage would produce: equal arguments, equal bytes.

    Args:
        stage, version: the code, by the stage's ``ID``; a stage raises its version when its results
            change.
        config: the stage's config as plain data, without anything that changes no result.
        inputs: member that the stage takes -> key of the artifact that it lies in.
        seed: the run's seed, None for a stage without randomness.
        source: fingerprint of data from outside (annotation files, images), if the stage reads any.

    Returns:
        24 hexadecimal digits of the SHA-256 over the canonical JSON of all of these.
    """
    payload = dict(
        stage=stage, version=version, config=config, inputs=inputs, seed=seed, source=source
    )
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class FileRecord:
    """One file of an artifact. ``path`` is relative to ``<stage>/<key>/``.

    ``index`` is a file beside it: of a table with large values the other columns once more, so that
    these can be read alone (:mod:`gcdis_ray.store.table_index`).
    """

    path: str
    bytes: int
    sha256: str
    rows: int | None = None  # tables only
    index: FileRecord | None = None

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """This file and its index, if it has one."""
        return (self,) if self.index is None else (self, self.index)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; what is not there is not said."""
        data = dict(path=self.path, bytes=self.bytes, sha256=self.sha256, rows=self.rows)
        return data if self.index is None else data | {"index": self.index.plain()}

    @staticmethod
    def of(plain: Mapping[str, Any]) -> FileRecord:
        """Inverse of :meth:`plain`. Raises TypeError if it is no record."""
        index = plain.get("index")
        return FileRecord(**{**plain, "index": None if index is None else FileRecord.of(index)})


@dataclass(frozen=True)
class Size:
    """How large an artifact is: rows of its longest table, bytes of all its files, bytes that were,
    or will be, read to make it, of its files, bytes of weights, and, of images and where they have
    been counted, how many each split has."""

    rows: int
    bytes: int
    read_bytes: int = 0
    weight_bytes: int = 0
    splits: Mapping[str, int] = field(default_factory=dict)

    @property
    def image_bytes(self) -> int:
        """Of ingest: about those of the image files, which are stored or, with ``store: uri``, only
        read. They outweigh whatever else it reads."""
        return max(self.bytes, self.read_bytes)


@dataclass(frozen=True)
class Workload:
    """What there is to do for an artifact, in the units that rates are of.

    Attributes:
        samples: that a training learns from, each as often as it is seen.
        rows: that its data steps go through: images or crops; see the stage.
    """

    samples: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Manifest:
    """The commit record of an artifact: what it holds and where it came from."""

    stage: str
    key: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    seed: int | None
    source: str | None
    files: dict[str, list[FileRecord]]  # member name -> files in shard order
    counts: dict[str, int] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    io: dict[str, int] = field(default_factory=dict)  # read_bytes, written_bytes of the run
    # of its training, in the run that finished it: columns of gcdis_ray.training.pace.Course
    pace: dict[str, list[float | None]] = field(default_factory=dict)
    created: str = ""
    node: str = ""  # name in the recipe of the run that made it

    @property
    def size(self) -> Size:
        rows = [sum(f.rows or 0 for f in files) for files in self.files.values()]
        every = [f for files in self.files.values() for file in files for f in file.files]
        return Size(
            max(rows, default=0),
            sum(f.bytes for f in every),
            self.io.get("read_bytes", 0),
            sum(f.bytes for f in every if f.path.endswith(".safetensors")),
        )

    def to_json(self) -> str:
        data = dict(self.__dict__)
        data["files"] = {name: [f.plain() for f in files] for name, files in self.files.items()}
        return json.dumps({"format": "gcdis-manifest-1", **data}, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str, where: str) -> Manifest:
        try:
            data = json.loads(text)
            if data.pop("format") != "gcdis-manifest-1":
                raise ValueError("unknown manifest format")
            data["files"] = {
                name: [FileRecord.of(f) for f in files] for name, files in data["files"].items()
            }
            return Manifest(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"not a manifest ({error})", where=where, fix="remove that file and run again"
            ) from error


class Opener(Protocol):
    """How handles read files; implemented in :mod:`gcdis_ray.store.storage`. Must pickle."""

    def read_bytes(self, record: FileRecord) -> bytes: ...
    def read_table(self, record: FileRecord, columns: Sequence[str] | None) -> pa.Table: ...
    def read_index(self, record: FileRecord) -> pa.Table: ...
    def read_values(
        self, record: FileRecord, column: str, rows: pa.Table
    ) -> list[bytes | None]: ...


@dataclass(frozen=True)
class Table:
    """A sharded table. Small to pickle: it holds records of files, not rows."""

    name: str
    shards: tuple[FileRecord, ...]
    opener: Opener

    @property
    def num_rows(self) -> int:
        return sum(shard.rows or 0 for shard in self.shards)

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    @property
    def digest(self) -> str:
        """Of all rows: equal for equal files in the same order."""
        files = [[shard.sha256, shard.rows] for shard in self.shards]
        return hashlib.sha256(canonical_json(files).encode()).hexdigest()

    def shard(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of one shard in their stored order, schema checked."""
        return self.opener.read_table(self.shards[index], columns)

    def index(self, index: int) -> pa.Table | None:
        """The small columns of a shard, and where its large values lie, by row; None if it has no
        index. See :mod:`gcdis_ray.store.table_index`."""
        record = self.shards[index].index
        return None if record is None else self.opener.read_index(record)

    def values(self, index: int, column: str, rows: pa.Table) -> list[bytes | None]:
        """Large values of some rows of a shard, one by one.

        Args:
            rows: of :meth:`index`.
        """
        return self.opener.read_values(self.shards[index], column, rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in shard order. Ask for the columns you need: image bytes are large."""
        return pa.concat_tables(self.iter_shards(columns, ahead=_READERS))

    def iter_shards(
        self, columns: Sequence[str] | None = None, *, ahead: int = 0
    ) -> Iterator[pa.Table]:
        """Rows shard by shard.

        Args:
            ahead: shards that are read while one is used: a bucket takes as long for some as for
                one.
        """
        if not ahead or self.num_shards < 2:
            yield from (self.shard(i, columns) for i in range(self.num_shards))
            return
        with ThreadPoolExecutor(ahead) as pool:
            reading = deque[Future[pa.Table]]()
            for i in range(self.num_shards):
                reading.append(pool.submit(copy_context().run, self.shard, i, columns))
                if len(reading) > ahead:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()


@dataclass(frozen=True)
class TensorFile:
    """Handle to stored tensors. Small to pickle: workers load them where they run."""

    record: FileRecord
    opener: Opener

    def load(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load

        return load(self.opener.read_bytes(self.record))


@dataclass(frozen=True)
class Artifact:
    """A committed artifact, read by member name. Every read checks size and SHA-256."""

    manifest: Manifest
    opener: Opener

    @property
    def key(self) -> str:
        return self.manifest.key

    def has(self, member: str) -> bool:
        return member in self.manifest.files

    def _files(self, member: str) -> list[FileRecord]:
        try:
            return self.manifest.files[member]
        except KeyError:
            raise ArtifactError(
                f"no member {member!r}; it has {sorted(self.manifest.files)}",
                where=f"{self.manifest.stage}/{self.key}",
            ) from None

    def table(self, member: str) -> Table:
        return Table(member, tuple(self._files(member)), self.opener)

    def json(self, member: str) -> Any:
        return json.loads(self.opener.read_bytes(self._files(member)[0]))

    def tensor_file(self, member: str) -> TensorFile:
        return TensorFile(self._files(member)[0], self.opener)
