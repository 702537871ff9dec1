"""From a name to a row of ``images``: the file is read, checked, and its turn decided."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gcdis_ray.data.images.image_check import ImageFacts, ImageLimits, check_image
from gcdis_ray.data.images.turns import AS_STORED, turned_size
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder

Exif = Literal["apply", "refuse", "ignore"]
SEE_EXIF = "see stages.ingest.exif"


@dataclass(frozen=True)
class ImageReader:
    """Reads image files of a folder.

    Args:
        store: whether rows hold the files, or only say where they are.
        exif: what is done about turns that cameras note.
    """

    folder: SourceFolder
    limits: ImageLimits
    store: Literal["bytes", "uri"]
    exif: Exif

    def read(self, image: Mapping[str, Any], counts: Counter[str]) -> dict[str, Any]:
        """A row of ``images``.

        Args:
            image: ``image_id``, ``uri``, ``split``, and ``height_px`` and ``width_px`` that
                something lists, or null.
            counts: is told what was done to it.

        Raises:
            DataError: it cannot be used. StorageError: the source cannot be reached.
        """
        try:
            state = self.folder.state(image["uri"])
            if state is None:
                raise DataError("file is missing")
            if state.num_bytes > self.limits.max_bytes:
                raise DataError(
                    f"{state.num_bytes} bytes, at most {self.limits.max_bytes} are allowed"
                )
            data = self.folder.read(image["uri"])
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}") from None
        facts = check_image(data, self.limits)
        turn = self._turn(facts)
        height, width = turned_size(turn, *facts.stored_hw)
        if image["height_px"] is not None:
            _check_size(facts, turn, (image["height_px"], image["width_px"]))
        counts["images_16_bit_stretched"] += facts.is_16_bit
        counts["images_turned"] += turn != AS_STORED
        counts["images_turn_ignored"] += turn != facts.turn
        return {
            "image_id": image["image_id"],
            "uri": image["uri"],
            "bytes": data if self.store == "bytes" else None,
            "turn": turn,
            "height_px": height,
            "width_px": width,
            "sha256": hashlib.sha256(data).hexdigest(),
            "split": image["split"],
        }

    def _turn(self, facts: ImageFacts) -> int:
        if self.exif == "refuse" and facts.turn != AS_STORED:
            raise DataError(f"{_turned(facts)}, and stages.ingest.exif is refuse")
        return facts.turn if self.exif == "apply" else AS_STORED


def _check_size(facts: ImageFacts, turn: int, listed_hw: tuple[int, int]) -> None:
    """Raise DataError if an image, so turned, is not of the size that its annotation file lists."""
    height, width = turned_size(turn, *facts.stored_hw)
    if (height, width) == listed_hw:
        return
    said = f"{height} x {width} pixels (height x width), the annotation file says "
    said += f"{listed_hw[0]} x {listed_hw[1]}"
    if turn != AS_STORED and facts.stored_hw == listed_hw:
        said = f"{_turned(facts)}, to {said}, as it is stored: {SEE_EXIF}"
    elif turn != facts.turn and turned_size(facts.turn, *facts.stored_hw) == listed_hw:
        said += f", and {_turned(facts)} to that: {SEE_EXIF}"
    raise DataError(said)


def _turned(facts: ImageFacts) -> str:
    return f"its EXIF orientation, {facts.turn}, turns it"
