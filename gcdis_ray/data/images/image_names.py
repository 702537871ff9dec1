"""Names of image files, and the ids that are made from them."""

from __future__ import annotations

import hashlib

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")  # of files that need no look to be taken


def id_of_name(name: str) -> int:
    """An id made from a name. 53 bits: exact in JSON and in a double."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 11
