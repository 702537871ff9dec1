"""How many crops it takes to know the sizes of clusters."""

from __future__ import annotations

_PER_OUTPUT = 20


def remembered_crops(wanted: int | None, num_outputs: int, num_crops: int) -> int:
    """Crops of earlier steps that count with those of a step when sizes of clusters are looked at.
    A batch alone shows few of each of many classes.

    Args:
        wanted: as the config says; None: 20 for each output, but no more than there are crops.
    """
    return min(_PER_OUTPUT * num_outputs, num_crops) if wanted is None else wanted
