"""The check of compressed run lengths against pycocotools, which trusts its input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from gcdis_ray.masks.run_lengths import run_areas
from gcdis_ray.metrics.files.coco_batches import _Lines

masks = arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 60)), elements=st.booleans())


def _counts(mask: np.ndarray) -> str:
    return coco_mask.encode(np.asfortranarray(mask))["counts"].decode()


def _fill(counts: list[str], num_pixels: np.ndarray) -> np.ndarray:
    return run_areas(pa.array(counts, pa.string()), num_pixels) >= 0


@examples(60)
@given(st.lists(masks, min_size=1, max_size=6))
def test_every_encoded_mask_fills_its_image_and_no_other(found: list[np.ndarray]) -> None:
    counts = [_counts(mask) for mask in found]
    size = np.array([mask.size for mask in found])
    areas = [int(mask.sum()) for mask in found]
    assert run_areas(pa.array(counts), size).tolist() == areas
    assert run_areas(pa.array(counts)[1:], size[1:]).tolist() == areas[1:]
    assert not _fill(counts, size + 1).any()
    mixed = [text if n % 2 else text[:-1] + "o" for n, text in enumerate(counts)]
    assert _fill(mixed, size).tolist() == [n % 2 == 1 for n in range(len(mixed))]


def test_a_mask_after_one_that_is_cut_off_or_foreign_is_good() -> None:
    """``<`` is 12 zeros; seven characters are a number, eight are none."""
    texts = ["p" * 9, "<", "<" + "\x80" * 3, "<", "", "<", "p" * 7 + "0", "<"]
    assert _fill(texts, np.full(len(texts), 12)).tolist() == [False, True] * 4


def test_large_runs_and_long_masks() -> None:
    mask = np.zeros((1500, 1500), np.uint8)
    mask[3:1400, 700:1203:2] = 1
    assert _fill([_counts(mask), _counts(1 - mask)], np.array([mask.size] * 2)).all()


@examples(200)
@example("\x80", 15)
@given(st.text(max_size=12), st.integers(0, 50))
def test_no_text_breaks_the_check(text: str, size: int) -> None:
    good = bool(_fill([text], np.array([size]))[0])
    if good:
        rle = {"size": [size, 1], "counts": text.encode()}
        assert coco_mask.decode(rle).shape == (size, 1)


def _read_all(path: Path, size: int) -> list[bytes]:
    with path.open("rb") as file:
        lines = _Lines(file, path.stat().st_size)
        return list(iter(lambda: lines.read(size), b""))


@pytest.mark.parametrize("separators", [(", ", ": "), (",", ":")])
def test_lists_become_lines_however_they_are_cut(tmp_path: Path, separators: Any) -> None:
    rows = [{"a": n, "b": {"c": [n, n]}} for n in (1, 22, 333, 4444)]
    path = tmp_path / "list.json"
    path.write_text(" \n" + json.dumps(rows, separators=separators) + "\n ")
    for size in [*range(1, 60), -1]:
        parts = _read_all(path, size)
        assert size < 0 or all(len(part) == size for part in parts[:-1])
        assert [json.loads(line) for line in b"".join(parts).splitlines()] == rows


@pytest.mark.parametrize(
    "text",
    [
        "[null]", "[\n null, null\n]", '[{"a": 1} {"a": 2}]', '[{"a": 1}\n{"a": 2}]',
        " " * 70 + "[null]", "[" + "\n" * 70 + "null]", "[[null]]",
        '[{"a": 1}\nnull]', "[1]", "{}", "null", '[{"a": 1}', '[{"a": {}} 1]',
    ],
)  # fmt: skip
def test_what_arrow_would_take_or_die_of_does_not_get_through(tmp_path: Path, text: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(text)
    for size in [*range(1, 20), -1]:
        with pytest.raises(pa.ArrowInvalid):
            _read_all(path, size)


def test_braces_that_do_not_come_end_the_search(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_bytes(b'[{"a": "' + b"0" * (20 << 20) + b'"}]')
    with pytest.raises(pa.ArrowInvalid, match="absurd length"):
        _read_all(path, 1 << 20)
