"""What a format is: a module with a writer of its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gcdis_ray.exporting.classes import ExportedClass
from gcdis_ray.exporting.objects import ExportedImage
from gcdis_ray.exporting.shapes import Shapes


@dataclass(frozen=True)
class Target:
    """Where to write, and how.

    Args:
        folder: to fill.
        run: name of the run.
        shapes: of masks.
        rle: run lengths rather than polygons.
        image_prefix: what precedes names of images where a program fetches them.
    """

    folder: Path
    run: str
    classes: Sequence[ExportedClass]
    shapes: Shapes
    rle: bool
    image_prefix: str


class Writer(Protocol):
    """Takes images one by one; :meth:`close` ends its files."""

    def add(self, number: int, name: str, image: ExportedImage) -> None:
        """Args:
        number: id of the image in the export, at least 1: the data set's where all of them are.
        name: of its file, relative to the format's folder of images.
        image: without crowds if the format knows none, and without empty masks.
        """
        ...

    def close(self) -> None: ...
