"""Where artifacts live: a local folder or an S3-compatible bucket, behind one small protocol.

Layout, with everything below ``<storage uri>/<stage>/<key>/``::

    attempt-<id>/<member>/part-00000.parquet   files of one try to produce the artifact
    attempt-<id>/begun/<group>.json            how many units of work that try has begun
    attempt-<id>/done/<group>/00000.json       record of a finished unit of work in that try
    manifest.json                              created only if absent; makes the artifact exist
    train/                                     scratch of a training run: checkpoints to resume

No manifest, no artifact. Nothing a manifest names is ever rewritten. The loser of a race to create
a manifest adopts the winner's (on S3: ``If-None-Match: *``).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.parquet as pq

from gcdis_ray.errors import ArtifactError, StorageError
from gcdis_ray.store.artifacts import Artifact, FileRecord, Manifest
from gcdis_ray.store.meter import count
from gcdis_ray.store.s3 import Prefix, service_endpoint
from gcdis_ray.store.schemas import DIGESTS, check_schema
from gcdis_ray.store.table_index import is_large, places_of

MANIFEST = "manifest.json"
_PROBE = f".check-{uuid.uuid4().hex}"  # of this process: who may not delete leaves one, not many


class Storage(Protocol):
    """A place for files named by ``/``-separated relative paths. Pickles to workers."""

    @property
    def uri(self) -> str: ...
    @property
    def endpoint(self) -> str | None: ...
    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError if absent, StorageError if the place cannot be reached."""
        ...

    def read_part(self, path: str, start: int, size: int) -> bytes:
        """``size`` bytes from byte ``start`` on, fewer where the file ends. Raises as
        :meth:`read`."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Whole or not at all: a reader never sees a part of the file."""
        ...

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A stream for a file that is too large for memory: what is written to it is there once the
        block ends, and not at all if it ends by an error."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write only if nothing is there, atomically among all writers. False: it was there."""
        ...

    def list(self, prefix: str) -> dict[str, int]:
        """Path -> size in bytes of every file below the folder ``prefix``."""
        ...

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below ``prefix``, sorted."""
        ...

    def newest(self, prefix: str) -> float:
        """When the newest file below the folder was written, seconds since 1970; 0 if none."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove the folder ``prefix`` and everything below. Absent is fine."""
        ...

    def check(self) -> None:
        """Raise StorageError if the place cannot be written, or not by creating only if absent."""
        ...


def open_storage(uri: str, endpoint: str | None = None) -> Storage:
    """Storage for a folder path or ``s3://bucket/prefix``.

    Args:
        endpoint: URL of an S3-compatible service; ``AWS_ENDPOINT_URL`` if not given. Credentials
            come from the environment, the usual files or the machine's role, never from a config.
    """
    scheme = urlparse(uri).scheme
    if scheme == "s3":
        if not urlparse(uri).netloc:
            raise StorageError("no bucket", where=f"storage: {uri}", fix="use s3://bucket/prefix")
        return S3Storage(uri.rstrip("/"), service_endpoint(endpoint, "storage_endpoint"))
    if scheme in ("", "file"):
        return LocalStorage(str(Path(urlparse(uri).path if scheme else uri).absolute()))
    raise StorageError(
        f"unknown scheme {scheme!r}", where=f"storage: {uri}", fix="use a folder or s3://..."
    )


def check_path(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise StorageError("path leaves the storage folder", where=path)
    return path


@contextmanager
def _local_errors(where: Path, writing: bool = False) -> Iterator[None]:
    """A file that is not there is an answer when reading, a mistake when writing."""
    try:
        yield
    except FileNotFoundError as error:
        if not writing:
            raise
        raise StorageError(
            "cannot be created", where=str(where), fix="choose another storage folder"
        ) from error
    except OSError as error:
        fix = {
            13: "make the folder writable, or choose another storage",
            28: "free disk space and run again: finished work is kept",
            30: "choose another storage: this one is read-only",
        }.get(error.errno or 0, "check the storage folder and run again")
        raise StorageError(error.strerror or str(error), where=str(where), fix=fix) from error


def _ended(file: BinaryIO) -> None:
    """All of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    count(written_bytes=file.tell())


@dataclass(frozen=True)
class LocalStorage:
    """A folder. Writes go to a temporary name first and are renamed into place."""

    root: str
    endpoint: None = None

    @property
    def uri(self) -> str:
        return self.root

    def _at(self, path: str) -> Path:
        return Path(self.root) / check_path(path)

    def read(self, path: str) -> bytes:
        with _local_errors(self._at(path)):
            data = self._at(path).read_bytes()
        count(read_bytes=len(data))
        return data

    def read_part(self, path: str, start: int, size: int) -> bytes:
        with _local_errors(self._at(path)), open(self._at(path), "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, start)
        count(read_bytes=len(data))
        return data

    @contextmanager
    def _temporary(self, path: str) -> Iterator[tuple[BinaryIO, Path]]:
        """A file beside the place, and the place; its owner says that it is whole by :func:`_ended`
        before it is moved there."""
        target = self._at(path)
        with _local_errors(target, writing=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            name = str(target.parent / f".writing-{uuid.uuid4().hex}")
            try:
                with open(name, "xb") as file:  # with the rights the user's umask gives
                    yield file, target
            finally:
                Path(name).unlink(missing_ok=True)

    def write(self, path: str, data: bytes) -> None:
        with self.writing(path) as file:
            file.write(data)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        with self._temporary(path) as (file, target):
            yield file
            _ended(file)
            os.replace(file.name, target)

    def create(self, path: str, data: bytes) -> bool:
        with self._temporary(path) as (file, target):
            file.write(data)
            _ended(file)
            try:
                os.link(file.name, target)  # fails if the target exists, unlike rename
            except FileExistsError:
                return False
        return True

    def list(self, prefix: str) -> dict[str, int]:
        found, base = {}, self._at(prefix)
        with _local_errors(base):
            for folder, _, names in os.walk(base):
                for name in names:
                    file = Path(folder, name)
                    if not name.startswith(".writing-") and file.is_file():
                        found[file.relative_to(self.root).as_posix()] = file.stat().st_size
        return dict(sorted(found.items()))

    def folders(self, prefix: str) -> list[str]:
        base = self._at(prefix)
        with _local_errors(base):
            return sorted(p.name for p in base.iterdir() if p.is_dir()) if base.is_dir() else []

    def newest(self, prefix: str) -> float:
        with _local_errors(self._at(prefix)):
            times = (p.stat().st_mtime for p in self._at(prefix).rglob("*") if p.is_file())
            return max(times, default=0.0)

    def delete(self, prefix: str) -> None:
        import shutil

        with _local_errors(self._at(prefix)):
            if self._at(prefix).is_dir():
                shutil.rmtree(self._at(prefix))

    def check(self) -> None:
        probe = f".check-{uuid.uuid4().hex}"
        created = self.create(probe, b""), self.create(probe, b"")
        self._at(probe).unlink(missing_ok=True)
        if created != (True, False):
            raise StorageError(
                "the folder lets a file be created twice", where=self.root, fix="use another folder"
            )


@dataclass(frozen=True)
class S3Storage:
    """``s3://bucket/prefix`` on AWS or any service that speaks its protocol."""

    location: str
    endpoint: str | None = None

    @property
    def uri(self) -> str:
        return self.location

    @property
    def _prefix(self) -> Prefix:
        return Prefix(self.location, self.endpoint)

    def read(self, path: str) -> bytes:
        return self._prefix.read(check_path(path))

    def read_part(self, path: str, start: int, size: int) -> bytes:
        return self._prefix.read_part(check_path(path), start, size)

    def write(self, path: str, data: bytes) -> None:
        self._prefix.write(check_path(path), data)

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        place = Path(tempfile.gettempdir())
        with _local_errors(place, writing=True), tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            self._prefix.write_file(check_path(path), file)

    def create(self, path: str, data: bytes) -> bool:
        return self._prefix.create(check_path(path), data)

    def list(self, prefix: str) -> dict[str, int]:
        return {item.path: item.num_bytes for item in self._prefix.objects(check_path(prefix))}

    def folders(self, prefix: str) -> list[str]:
        return self._prefix.folders(check_path(prefix))

    def newest(self, prefix: str) -> float:
        times = (item.modified for item in self._prefix.objects(check_path(prefix)))
        return max(times, default=0.0)

    def delete(self, prefix: str) -> None:
        self._prefix.delete(self.list(prefix))

    def check(self) -> None:
        self._prefix.check(_PROBE)


def file_record(path: str, data: bytes, rows: int | None = None) -> FileRecord:
    return FileRecord(path, len(data), hashlib.sha256(data).hexdigest(), rows)


def encode_table(table: pa.Table) -> bytes:
    """Parquet bytes, equal for equal tables. Encoded images are neither indexed nor squeezed."""
    blobs = [f.name for f in table.schema if pa.types.is_binary(f.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=256 if blobs else 65_536,
        compression="none" if blobs else "zstd",
        use_dictionary=[  # pyright: ignore[reportArgumentType]  a list is allowed
            f.name for f in table.schema if pa.types.is_string(f.type)
        ],
        write_statistics=False,
        store_schema=False,
    )
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class ArtifactOpener:
    """Reads the files of one artifact; refuses any that are not what the manifest says."""

    storage: Storage
    base: str  # <stage>/<key>
    schemas: Mapping[str, pa.Schema] = field(default_factory=dict)  # table -> its columns

    def read_bytes(self, record: FileRecord) -> bytes:
        with self._refusing_damage(record):
            data = self.storage.read(f"{self.base}/{record.path}")
            _check(data, record.bytes, record.sha256)
        return data

    def read_table(self, record: FileRecord, columns: Sequence[str] | None) -> pa.Table:
        """A table without its large columns is read from the index, if there is one."""
        member = Path(record.path).parent.name
        schema = self.schemas[member]
        names = list(columns) if columns is not None else schema.names
        small = not any(is_large(schema.field(name).type) for name in names)
        table = self._read(record.index if record.index and small else record, names)
        if names == schema.names:
            return check_schema(member, table, schema)
        return table.cast(pa.schema([schema.field(name) for name in names]))

    def read_index(self, record: FileRecord) -> pa.Table:
        return self._read(record)

    def read_values(self, record: FileRecord, column: str, rows: pa.Table) -> list[bytes | None]:
        """Values of a column of :data:`~gcdis_ray.store.schemas.DIGESTS`, by rows of the index."""
        path, found = f"{self.base}/{record.path}", list[bytes | None]()
        told = (rows[name].to_pylist() for name in (*places_of(column), DIGESTS[column]))
        for start, size, digest in zip(*told, strict=True):
            if start is None:
                found.append(None)
                continue
            with self._refusing_damage(record):
                data = self.storage.read_part(path, start, size)
                _check(data, size, digest)
            found.append(data)
        return found

    def _read(self, record: FileRecord, names: Sequence[str] | None = None) -> pa.Table:
        file = pq.ParquetFile(pa.BufferReader(self.read_bytes(record)))
        if any(isinstance(field.type, pa.BaseExtensionType) for field in file.schema_arrow):
            raise ArtifactError("extension types are refused", where=f"{self.base}/{record.path}")
        table = file.read(columns=None if names is None else list(names))
        return table if names is None else table.select(list(names))

    @contextmanager
    def _refusing_damage(self, record: FileRecord) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, _Damaged) as error:
            gone = isinstance(error, FileNotFoundError)
            raise ArtifactError(
                "file is gone" if gone else "file is damaged (size or SHA-256 differs)",
                where=f"{self.storage.uri}/{self.base}/{record.path}",
                fix=f"remove the folder {self.base} from the storage and run again",
            ) from None


class _Damaged(Exception):
    """Bytes that are not those that were written."""


def _check(data: bytes, size: int, sha256: str) -> None:
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise _Damaged


def read_manifest(storage: Storage, stage: str, key: str) -> Manifest | None:
    path = f"{stage}/{key}/{MANIFEST}"
    try:
        return Manifest.from_json(storage.read(path).decode(), f"{storage.uri}/{path}")
    except FileNotFoundError:
        return None


def open_artifact(
    storage: Storage, manifest: Manifest, schemas: Mapping[str, pa.Schema]
) -> Artifact:
    """Args: schemas: of its tables, by name."""
    opener = ArtifactOpener(storage, f"{manifest.stage}/{manifest.key}", schemas)
    return Artifact(manifest, opener)


def commit(storage: Storage, manifest: Manifest) -> Manifest:
    """Make the artifact exist. Returns the manifest that is now there: ours or an earlier one."""
    path = f"{manifest.stage}/{manifest.key}/{MANIFEST}"
    if storage.create(path, manifest.to_json().encode()):
        return manifest
    winner = read_manifest(storage, manifest.stage, manifest.key)
    if winner is None:
        raise StorageError("manifest exists but cannot be read", where=f"{storage.uri}/{path}")
    return winner
