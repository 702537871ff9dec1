"""The classes of the ground truth as columns of every count, by rising ``category_id``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.lookup import places
from gcdis_ray.store.members import Members


@dataclass(frozen=True)
class ClassColumns:
    """Args:
    categories: rows of the ground truth's ``categories``, by rising ``category_id``.
    column_of_output: outputs that were trained on a known class -> its column.
    """

    categories: Sequence[Mapping[str, Any]]
    column_of_output: Mapping[int, int]

    @classmethod
    def read(cls, inputs: Members) -> ClassColumns:
        """From documents ``categories`` and ``classes``."""
        categories = sorted(inputs.json("categories"), key=lambda row: row["category_id"])
        column_of = {row["category_id"]: n for n, row in enumerate(categories)}
        fixed = {
            row["class_index"]: column_of[row["category_id"]]
            for row in inputs.json("classes")
            if row["category_id"] in column_of
        }
        return cls(categories, fixed)

    def __len__(self) -> int:
        return len(self.categories)

    def num_outputs(self, discovered: Sequence[Mapping[str, Any]]) -> int:
        """One above the highest output, of these or of ``discovered_classes``."""
        used = [*self.column_of_output, *(row["class_index"] for row in discovered)]
        return 1 + max(used, default=-1)

    @cached_property
    def known(self) -> list[int]:
        """Columns of the known classes."""
        return [n for n, row in enumerate(self.categories) if row["known"]]

    @cached_property
    def _ids(self) -> NDArray[np.int64]:
        return np.array([row["category_id"] for row in self.categories], dtype=np.int64)

    def columns(self, category_N: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns of category ids, -1 for ids that are none."""
        return places(category_N, self._ids)
