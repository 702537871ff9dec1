"""What lies beside a file of a table with large values, so that small columns can be read alone.

A file is read whole, since that is what its size and SHA-256 say something of. So reading a label
of every crop would read every JPEG. Beside such a file lies its *index*, a file of its own: all
columns but the large ones; and, for a large column that comes with the SHA-256 of each value
(:data:`~gcdis_ray.store.schemas.DIGESTS`), where in the file each value begins and how long it is,
so that one can be read alone and held to that.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gcdis_ray.store.schemas import DIGESTS

_LARGE = 0.75  # of a table's bytes, and an index pays


def index_path(path: str) -> str:
    """Of a table's file, relative to the same place."""
    return path.removesuffix(".parquet") + ".index.parquet"


def is_large(kind: pa.DataType) -> bool:
    """Encoded files, and vectors of any length."""
    vectors = pa.types.is_list(kind) and pa.types.is_floating(kind.value_type)
    return pa.types.is_binary(kind) or vectors


def places_of(column: str) -> tuple[str, str]:
    """Columns of an index: where values begin, in bytes from the file's start, and how long they
    are, in bytes; null where the value is."""
    return f"{column}.at", f"{column}.size"


def index_of(table: pa.Table, data: bytes) -> pa.Table | None:
    """The index of a table's file; None if it would not pay.

    Args:
        data: the file, with large values as they are, in order.
    """
    large = [column.name for column in table.schema if is_large(column.type)]
    index = table.drop_columns(large)
    if not large or not index.num_columns or table.nbytes - index.nbytes < _LARGE * table.nbytes:
        return None
    for name in large:
        if DIGESTS.get(name) in index.column_names:
            at, size = places_of(name)
            places = _places(table[name], data, _starts(data, name))
            index = index.append_column(at, pa.array([p for p, _ in places], pa.int64()))
            index = index.append_column(size, pa.array([n for _, n in places], pa.int64()))
    return index


def _starts(data: bytes, column: str) -> list[tuple[int, int]]:
    """First row of each group of rows, and where its values of the column begin."""
    found, first = [], 0
    metadata: Any = pq.ParquetFile(pa.BufferReader(data)).metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        chunks = (group.column(c) for c in range(group.num_columns))
        chunk = next(chunk for chunk in chunks if chunk.path_in_schema == column)
        found.append((first, chunk.data_page_offset))
        first += group.num_rows
    return found


def _places(
    column: pa.ChunkedArray, data: bytes, starts: list[tuple[int, int]]
) -> list[tuple[int | None, int | None]]:
    """Where each value lies and its length. They lie one after another with their length, four
    bytes, before each, and a few bytes more where a page begins: the next equal bytes are the value
    or as good."""
    places, end, begins = [], 0, dict(starts)
    for row, value in enumerate(column):
        end = begins.get(row, end)
        held = value.as_buffer()
        if held is None:
            places.append((None, None))
            continue
        end = data.index(held.size.to_bytes(4, "little") + memoryview(held), end) + 4
        places.append((end, held.size))
        end += held.size
    return places
