"""Image files: what is accepted, how it is checked, how it becomes RGB.

Accepted by content, whatever the name says: JPEG, PNG and WebP with one picture. Grey, CMYK,
palette and 16-bit pictures become 8-bit RGB; transparency is dropped.

Pictures are never turned by their EXIF orientation: COCO annotations are in stored pixels, so a
turned picture would no longer fit its masks.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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


def check_image(data: bytes, limits: ImageLimits) -> tuple[int, int]:
    """Size of an image that decodes completely.

    The header's size is compared with the limits before a pixel is decoded.

    Returns:
        (height, width) in pixels, as stored.

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
    return height_px, width_px


def decode_rgb(data: bytes) -> np.ndarray:
    """RGB pixels of an image that :func:`check_image` has accepted.

    Returns:
        (H, W, 3) uint8, stored orientation.

    Raises:
        DataError: it does not decode.
    """
    if image_format(data) == "JPEG" and _jpeg_channels(data) in (1, 3):
        import cv2  # decodes the common case fastest

        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is None:
            raise DataError("damaged JPEG")
        return pixels
    image = _open(data)
    _load(image)
    if image.mode.startswith("I"):  # 16-bit grey: keep the high byte, as for 16-bit colour
        grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def _jpeg_channels(data: bytes) -> int:
    """What a JPEG's frame header declares; 0 if no such header is found."""
    place = 2
    while place + 10 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return data[place + 9]
        if marker == 0xFF:  # padding
            place += 1
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def _open(data: bytes) -> Image:
    """The image with its header read and no pixel decoded."""
    from PIL import Image, UnidentifiedImageError

    kind = image_format(data)
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
