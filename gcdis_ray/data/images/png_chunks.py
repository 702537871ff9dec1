"""PNG files without what is no picture: texts and colour profiles can be larger than a reader of
pictures takes, and say nothing of pixels here."""

from __future__ import annotations

from gcdis_ray.errors import DataError

_PASSED_OVER = (b"iCCP", b"iTXt", b"tEXt", b"zTXt")
_MOST = 100_000  # chunks


def without_metadata(data: bytes) -> bytes:
    """The file without its texts and profile, none of which is unpacked; as it is if it has none.

    EXIF stays, and damage too: who reads the picture will find it.

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
        if name in _PASSED_OVER:
            kept.append(data[start:place])
            start = end
        place = end
    raise DataError(f"a PNG of more than {_MOST:,} chunks")
