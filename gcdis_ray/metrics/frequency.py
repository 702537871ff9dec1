"""Accuracy along the long tail: classes in thirds by how often they occur."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Third = Literal["head", "mid", "tail"]
THIRDS: tuple[Third, ...] = ("head", "mid", "tail")
NO_THIRDS: dict[str, float | None] = dict.fromkeys(THIRDS)


def frequency_thirds(num_objects: Mapping[int, int]) -> dict[int, Third]:
    """Which third each class is in; classes without any object are in none.

    Args:
        num_objects: class -> true objects.

    Returns:
        class -> third. Classes are ordered by objects, most first and equal ones by rising class,
        and cut into three groups whose sizes differ by at most one, the larger ones first.
    """
    present = sorted((-count, c) for c, count in num_objects.items() if count > 0)
    groups = np.array_split(np.array([c for _, c in present], dtype=np.int64), 3)
    return {c: third for third, group in zip(THIRDS, groups, strict=True) for c in group.tolist()}


def accuracy_by_third(
    right_N: NDArray[np.bool_], class_N: NDArray[np.integer], third_of: Mapping[int, Third]
) -> dict[str, float | None]:
    """Share of right crops among those whose true class is in each third.

    Args:
        right_N: whether the crop was given its true class.
        class_N: true classes.
        third_of: of :func:`frequency_thirds`.

    Returns:
        ``head``, ``mid``, ``tail``, each in [0, 1], None where there is no crop.
    """
    result = dict(NO_THIRDS)
    for third in THIRDS:
        inside = np.isin(class_N, [c for c, name in third_of.items() if name == third])
        if inside.any():
            result[third] = float(right_N[inside].mean())
    return result
