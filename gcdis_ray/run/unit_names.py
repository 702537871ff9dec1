"""How finished units of work are named: after what they were made of, and by what.

A later try under the same key takes over units by their names, also those of another driver that
is alive under that key. On a GPU two trainings of one key end at different weights; so a name holds
a digest of the files that a unit was made of, weights among them, and tables that were made by
different weights are never put together. Nor are those of different kinds of device, or of
different precisions: their numbers differ in the last digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from gcdis_ray.runtime.base import ShardTask
from gcdis_ray.runtime.devices import precision_on
from gcdis_ray.store.artifacts import FileRecord, Table

_DIGITS = 16


def group_name(gives: Sequence[str], task: ShardTask, tables: Sequence[Table], device: str) -> str:
    """Of a group of tables, whose units are its shards: ``members[.device-precision].digest``.

    Args:
        task: its attributes hold handles to all that it reads besides ``tables``.
        device: that it is opened with; in the name if a network may run in it.
    """
    parts = ["+".join(gives)]
    if getattr(task, "wants_gpu", False):
        parts.append(f"{device}-{precision_on(device, getattr(task, 'precision', 'fp32'))}")
    read = [record.sha256 for record in files_of([_attributes(task), list(tables)])]
    if read:
        parts.append(hashlib.sha256("\n".join(read).encode()).hexdigest()[:_DIGITS])
    return ".".join(parts)


def _attributes(task: ShardTask) -> Any:
    return task if is_dataclass(task) else getattr(task, "__dict__", {})


def files_of(value: Any) -> Iterator[FileRecord]:
    """Every file that handles in a value name, in the order of fields, keys and items."""
    if isinstance(value, FileRecord):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from files_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from files_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from files_of(item)
