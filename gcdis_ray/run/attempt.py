"""One try to produce an artifact: writes files, remembers finished units, adopts earlier tries.

A *unit* is a shard of a table group or a whole training run. Its files are written first, then a
small record under ``done/``. Units are pure functions of the artifact's key, so a later attempt
under the same key takes over every recorded unit of an earlier one instead of redoing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gcdis_ray.errors import ArtifactError
from gcdis_ray.runtime.base import ShardOutput, ShardRecord
from gcdis_ray.store.artifacts import FileRecord, canonical_json
from gcdis_ray.store.schemas import check_schema
from gcdis_ray.store.storage import Storage, encode_table, file_record
from gcdis_ray.store.table_index import index_of, index_path

if TYPE_CHECKING:
    import torch

_READERS = 16  # small records read at a time: a bucket takes as long for one as for many


@dataclass(frozen=True)
class Attempt:
    """Where one try writes. Implements MemberWriter; pickles to workers."""

    storage: Storage
    base: str  # <stage>/<key>
    name: str  # attempt-<id>
    schemas: Mapping[str, pa.Schema] = field(default_factory=dict)  # of the tables it may hold

    def _write(self, path: str, data: bytes, rows: int | None = None) -> FileRecord:
        record = file_record(f"{self.name}/{path}", data, rows)
        self.storage.write(f"{self.base}/{record.path}", data)
        return record

    def table(self, member: str, table: pa.Table, part: int = 0) -> FileRecord:
        if member not in self.schemas:
            raise ArtifactError(f"the stage declares no table {member!r}", where=self.base)
        table = check_schema(member, table, self.schemas[member])
        path, data = f"{member}/part-{part:05d}.parquet", encode_table(table)
        index = index_of(table, data)
        if index is None:
            return self._write(path, data, table.num_rows)
        at = self._write(index_path(path), encode_table(index), index.num_rows)
        return replace(self._write(path, data, table.num_rows), index=at)

    def spool(
        self, name: str, table: pa.Table, part: int, number: str, schema: pa.Schema
    ) -> FileRecord:
        """Lay a table aside.

        It lies beside the attempts, so that collecting garbage finds what a killed run leaves.
        """
        data = encode_table(check_schema(name, table, schema))
        path = f"{self._spools}/{number}/{name}/part-{part:05d}.parquet"
        self.storage.write(f"{self.base}/{path}", data)
        return file_record(path, data, table.num_rows)

    def discard_spools(self) -> None:
        self.storage.delete(f"{self.base}/{self._spools}")

    @property
    def _spools(self) -> str:
        return self.name.replace("attempt-", "spool-")

    def tensors(self, member: str, tensors: Mapping[str, torch.Tensor]) -> FileRecord:
        from safetensors.torch import save

        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        return self._write(f"{member}/{member}.safetensors", save(plain))

    def json(self, member: str, value: Any) -> FileRecord:
        try:
            text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise ArtifactError(
                f"not plain JSON ({error})", where=f"{self.base}: {member}"
            ) from error
        return self._write(f"{member}/{member}.json", text.encode())

    def finish(self, unit: str, files: Mapping[str, list[FileRecord]], counts: Mapping[str, int]):
        """Record a finished unit: from here on no attempt under this key does it again."""
        payload = dict(
            files={name: [r.plain() for r in records] for name, records in files.items()},
            counts=dict(counts),
        )
        self.storage.write(
            f"{self.base}/{self.name}/done/{unit}.json", canonical_json(payload).encode()
        )


@dataclass(frozen=True)
class GroupWriter:
    """Writes shards of one group of tables. Implements ShardWriter; pickles to workers."""

    attempt: Attempt
    gives: tuple[str, ...]

    def unit(self, index: int) -> str:
        return f"{'+'.join(self.gives)}/{index:05d}"

    def write(self, index: int, output: ShardOutput) -> ShardRecord:
        if set(output.tables) != set(self.gives):
            raise ArtifactError(
                f"shard {index} gave {sorted(output.tables)}, promised were {sorted(self.gives)}",
                where=self.attempt.base,
            )
        files = {
            name: self.attempt.table(name, table, index) for name, table in output.tables.items()
        }
        self.attempt.finish(
            self.unit(index), {name: [record] for name, record in files.items()}, output.counts
        )
        return ShardRecord(index, files, dict(output.counts))


@dataclass(frozen=True)
class FinishedUnit:
    files: dict[str, list[FileRecord]]
    counts: dict[str, int]


def finished_units(storage: Storage, base: str) -> dict[str, FinishedUnit]:
    """Every unit that earlier attempts under ``<stage>/<key>`` finished and whose files are there.

    The first attempt in name order wins where two finished the same unit: they are equal.
    """
    present = storage.list(base)
    paths = {}
    for path in present:
        head, slash, unit = path.removeprefix(f"{base}/").partition("/done/")
        if slash and head.startswith("attempt-"):
            paths[path] = unit.removesuffix(".json")
    found: dict[str, FinishedUnit] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        texts = list(pool.map(storage.read, paths))
    for unit, text in zip(paths.values(), texts, strict=True):
        try:
            payload = json.loads(text)
            files = {
                name: [FileRecord.of(record) for record in records]
                for name, records in payload["files"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a record that cannot be read is a unit that is not finished
        written = (f for records in files.values() for record in records for f in record.files)
        if all(present.get(f"{base}/{f.path}") == f.bytes for f in written):
            found.setdefault(unit, FinishedUnit(files, payload["counts"]))
    return found
