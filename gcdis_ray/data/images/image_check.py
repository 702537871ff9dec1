"""Image files: what is accepted, how it is checked, how it becomes RGB.

Accepted by content, whatever the name says: JPEG, PNG and WebP with one picture. Grey, CMYK and
palette pictures become 8-bit RGB; transparency is dropped. Cameras and scanners put 10, 12 or 14
bits into 16: such a picture is stretched, so that its own largest value is white.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gcdis_ray.data.images.png_chunks import without_metadata
from gcdis_ray.data.images.turns import AS_STORED, turn_of, turned
from gcdis_ray.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_MAGIC = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"WEBP", 8, "WEBP"),
)
HEAD_BYTES = 12  # that tell the format


@dataclass(frozen=True)
class ImageLimits:
    """What one image may cost. PIL's own limit on pixels stays in force beyond these."""

    max_bytes: int = 64_000_000
    max_pixels: int = 50_000_000


@dataclass(frozen=True)
class ImageFacts:
    """What an image file says of itself.

    Args:
        stored_hw: height and width in pixels, as stored.
        turn: see :mod:`gcdis_ray.data.images.turns`.
        is_16_bit: whether its values are stretched.
    """

    stored_hw: tuple[int, int]
    turn: int
    is_16_bit: bool


def image_format(data: bytes) -> str:
    """``JPEG``, ``PNG`` or ``WEBP`` by the first bytes.

    Raises:
        DataError: it is none of them.
    """
    if not data:
        raise DataError("empty file")
    for magic, offset, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    raise DataError(f"not a JPEG, PNG or WebP file (it starts with {data[:8]!r})")


def check_image(data: bytes, limits: ImageLimits) -> ImageFacts:
    """What there is to know of an image that decodes completely.

    The header's size is compared with the limits before a pixel is decoded.

    Raises:
        DataError: too large, no accepted format, animated, truncated or damaged.
    """
    if len(data) > limits.max_bytes:
        raise DataError(f"{len(data)} bytes, at most {limits.max_bytes} are allowed")
    image = _open(data)
    width_px, height_px = image.size
    if width_px * height_px > limits.max_pixels:
        raise DataError(f"{height_px} x {width_px} pixels, at most {limits.max_pixels} are allowed")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a JPEG with previews
        raise DataError("animated image, one picture is expected")
    _load(image)
    is_16_bit = _is_16_bit(data)
    if is_16_bit:
        _values_16_bit(data)  # another decoder reads these, and it may be stricter
    turn = turn_of(image.info.get("exif", b""))
    return ImageFacts((height_px, width_px), turn, is_16_bit)


def decode_rgb(data: bytes, turn: int = AS_STORED) -> np.ndarray:
    """RGB pixels of an image that :func:`check_image` has accepted.

    Args:
        turn: to be done, whatever the file says.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: it does not decode.
    """
    return turned(_stored_rgb(data), turn)


def _stored_rgb(data: bytes) -> np.ndarray:
    if image_format(data) == "JPEG" and _jpeg_frame(data)[1] in (1, 3):
        pixels = _by_opencv(data, grey_too=False)  # decodes the common case fastest
        if pixels is not None:  # else of a kind that it does not know: decided by the file alone
            return pixels
    if _is_16_bit(data):
        return _stretched(data)
    image = _open(data)
    _load(image)
    return np.array(image.convert("RGB"))


def _is_16_bit(data: bytes) -> bool:
    return image_format(data) == "PNG" and data[24:25] == b"\x10"


def _stretched(data: bytes) -> np.ndarray:
    """A 16-bit PNG in 8 bits, its largest value as 255."""
    values = _values_16_bit(data)
    pixels = np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., 2::-1]
    largest = max(1, int(pixels.max()))
    in_8_bits = (np.arange(largest + 1, dtype=np.uint32) * 255 + largest // 2) // largest
    return in_8_bits.astype(np.uint8)[pixels]


def _values_16_bit(data: bytes) -> np.ndarray:
    """(H, W) or (H, W, channels), blue first, of a 16-bit PNG: PIL keeps the upper 8 bits of colour
    alone."""
    found = _by_opencv(without_metadata(data, keep=()), grey_too=True)
    if found is None:
        raise DataError("damaged PNG, or one of a kind that is not read")
    return found.astype(np.uint16, copy=False)  # as it is


def _by_opencv(data: bytes, *, grey_too: bool) -> np.ndarray | None:
    """The stored values as OpenCV decodes them, None if it does not.

    Args:
        grey_too: as they are, blue first, rather than RGB of 8 bits.
    """
    import cv2

    as_rgb = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    flags = cv2.IMREAD_UNCHANGED if grey_too else as_rgb
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # a size beyond its own limits
        return None


def _jpeg_frame(data: bytes) -> tuple[int, int]:
    """Bits of a value and channels, as a JPEG's frame header declares; zeros if none is found."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return data[place + 4], data[place + 9]
        if marker == 0xFF:  # padding
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0, 0


def _open(data: bytes) -> Image:
    """The image with its header read and no pixel decoded."""
    from PIL import Image, UnidentifiedImageError

    kind = image_format(data)
    if kind == "JPEG" and (bits := _jpeg_frame(data)[0]) > 8:
        raise DataError(f"a JPEG of {bits} bits a value, only those of 8 are read")
    data = without_metadata(data) if kind == "PNG" else data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=[kind])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError("more pixels than a picture may have") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError):
        raise DataError(f"damaged {kind}: its header cannot be read") from None


def _load(image: Image) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        raise DataError(f"truncated or damaged {image.format}: {error}") from None
