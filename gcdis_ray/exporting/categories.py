"""Which category id stands for each class in a file for other programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def category_ids(classes: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """Ids from 1 on, for 0 is the background to some programs.

    Args:
        classes: rows of a class table: ``class_index``, ``known`` and ``category_id``.

    Returns:
        class_index -> id. Known classes keep that of their data set where all of them are at least
        1 and differ, and discovered ones get the next ids above; else all are numbered.
    """
    known = [row for row in classes if row["known"]]
    kept = [int(row["category_id"] or 0) for row in known]
    if len(set(kept)) < len(known) or min(kept, default=1) < 1:
        return {row["class_index"]: number for number, row in enumerate(classes, 1)}
    novel = [row["class_index"] for row in classes if not row["known"]]
    ids = {row["class_index"]: category_id for row, category_id in zip(known, kept, strict=True)}
    return ids | {index: number for number, index in enumerate(novel, max(kept, default=0) + 1)}
