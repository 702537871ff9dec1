"""Names of image files, and the ids that are made from them."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def names_image(name: str) -> bool:
    """Whether a file of a folder is taken for an image: by its suffix, and not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def id_of_name(name: str) -> int:
    """An id made from a name. 53 bits: exact in JSON and in a double."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 11
