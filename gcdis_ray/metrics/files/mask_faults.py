"""Masks of a file that say nothing, to be named where masks are scored."""

from __future__ import annotations

from gcdis_ray.errors import DataError


class MaskFaults:
    """How many there are, and the first one with its place."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def add(self, fault: DataError, where: str) -> None:
        if not self.count:
            self.first = f"{where}: {fault.what}"
        self.count += 1
