"""Numbers, flags, texts and lists between Arrow and numpy, without a copy where there need be none.

pyarrow's own ``to_numpy`` and ``array`` import pandas, which takes longer than scoring a small set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Values of a column of numbers without nulls; may be read-only."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return np.from_dlpack(column)


def flags(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """Values of a column of booleans without nulls."""
    return numbers(column.cast(pa.uint8())).astype(np.bool_)


def matrix(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Rows (N, D) of a column of N lists of D numbers each, without nulls; may be read-only. Where
    there is no row, D is 0 unless the column's type says it."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    flat, num = numbers(column.flatten()), len(column)
    fixed = pa.types.is_fixed_size_list(column.type)
    return flat.reshape(num, column.type.list_size if fixed else len(flat) // max(num, 1))


def as_lists(rows_ND: NDArray[Any]) -> pa.ListArray:
    """Rows (N, D) of numbers as a column of lists."""
    num, length = rows_ND.shape
    ends = as_column(np.arange(num + 1, dtype=np.int32) * np.int32(length))
    return pa.ListArray.from_arrays(ends, as_column(rows_ND.reshape(-1)))


def as_column(values: NDArray[Any]) -> pa.Array:
    """Integers, floats or booleans (N,) as an Arrow array."""
    values = np.ascontiguousarray(values)
    kind, num = pa.from_numpy_dtype(values.dtype), len(values)
    if values.dtype == np.bool_:
        values = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(kind, num, [None, pa.py_buffer(values)])


def as_texts(values: Sequence[str]) -> pa.StringArray:
    """ASCII texts as an Arrow array.

    Raises:
        UnicodeEncodeError: a text is not ASCII.
    """
    ends = np.cumsum([0, *map(len, values)], dtype=np.int32)
    buffers = [pa.py_buffer(ends), pa.py_buffer("".join(values).encode("ascii"))]
    return pa.StringArray.from_buffers(len(values), *buffers)
