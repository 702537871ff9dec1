"""PNG files without what is no picture: texts, colour profiles and the notes of programs can be
larger than a reader of pictures takes, or damaged, and say nothing of pixels here."""

from __future__ import annotations

from collections.abc import Collection

from gcdis_ray.errors import DataError

_TOLD = (b"eXIf", b"acTL", b"fcTL", b"fdAT")  # turns, and whether there are several pictures
_MOST = 100_000  # chunks


def without_metadata(data: bytes, keep: Collection[bytes] = _TOLD) -> bytes:
    """The file without its ancillary chunks, none of which is unpacked; as it is if it has none.
    They do not change the colours of pixels, as far as those are read here.

    Damage of the picture stays: who reads it will find it.

    Args:
        keep: names of ancillary chunks that stay.

    Raises:
        DataError: more chunks than a picture has.
    """
    kept: list[bytes] = []
    start, place = 0, 8
    for _ in range(_MOST):
        name = data[place + 4 : place + 8]
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data) or name in (b"IEND", b""):
            return b"".join((*kept, data[start:])) if kept else data
        if name.isalpha() and name[:1].islower() and name not in keep:
            kept.append(data[start:place])
            start = end
        place = end
    raise DataError(f"a PNG of more than {_MOST:,} chunks")
