"""How masks and pictures are drawn and packed, for crops and whole images alike."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from gcdis_ray.report.palette import rgb

_QUALITIES = (80, 68, 55, 40, 25, 12)


def scaled_mask(mask: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An 8-bit grey mask at another (width, height), again only 0 and 255."""
    smooth = np.asarray(mask.resize(size, Image.Resampling.BILINEAR))
    return Image.fromarray(np.where(smooth >= 128, 255, 0).astype(np.uint8))


def faded(mask: Image.Image, opacity: float) -> Image.Image:
    """The mask as a stencil that lets ``opacity`` in [0, 1] of the paint through."""
    return Image.fromarray((np.asarray(mask) * opacity).astype(np.uint8))


def draw_outline(picture: Image.Image, mask: Image.Image, color: str) -> None:
    """Draw the mask's border into ``picture``: two pixels of colour inside a dark hairline.

    Args:
        mask: 8-bit grey, 0 or 255, of the picture's size.
        color: hex code.
    """
    box = mask.getbbox()
    if box is None:
        return
    # Filters are slow on whole images: work where the mask is, with room for the border.
    box = (box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3)
    mask = mask.crop(box)
    wide = mask.filter(ImageFilter.MaxFilter(3))
    hairline = ImageChops.subtract(wide.filter(ImageFilter.MaxFilter(3)), wide)
    border = ImageChops.subtract(wide, mask.filter(ImageFilter.MinFilter(3)))
    picture.paste((12, 12, 14), box[:2], faded(hairline, 0.6))
    picture.paste(rgb(color), box[:2], border)


def encode_jpeg(picture: Image.Image, max_bytes: int) -> bytes:
    """JPEG at the best quality of a short list that fits ``max_bytes``, or at the lowest."""
    encoded = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=2)
        encoded = buffer.getvalue()
        if len(encoded) <= max_bytes:
            break
    return encoded


def jpeg_uri(jpeg: bytes) -> str:
    """The picture as text that an ``<img>`` can show without any other file."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
