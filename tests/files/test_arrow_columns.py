"""Lists between Arrow and numpy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gcdis_ray.files.arrow_columns import as_lists, matrix


def test_lists_are_rows_of_a_matrix_and_back():
    rows_ND = np.arange(6, dtype=np.float32).reshape(3, 2)
    column = as_lists(rows_ND)
    assert column.equals(pa.array(rows_ND.tolist(), pa.list_(pa.float32())))
    assert np.array_equal(matrix(column), rows_ND)
    assert np.array_equal(matrix(column[1:]), rows_ND[1:])
    chunks = pa.chunked_array([column[2:], column[:1]])
    assert np.array_equal(matrix(chunks), rows_ND[[2, 0]])
    assert len(as_lists(rows_ND[:0])) == 0


def test_boxes_have_four_columns_even_where_there_is_none():
    boxes = pa.array([[1.0, 2.0, 3.0, 4.0]] * 3, pa.list_(pa.float32(), 4))
    assert np.array_equal(matrix(boxes[1:]), [[1, 2, 3, 4]] * 2)
    assert matrix(boxes[:0]).shape == (0, 4)
    assert matrix(pa.chunked_array([], boxes.type)).shape == (0, 4)
