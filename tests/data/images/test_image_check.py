"""Odd, damaged and hostile image files: decoded rightly or refused with a reason."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gcdis_ray.data.images.image_check import (
    ImageLimits,
    _jpeg_channels,
    check_image,
    decode_rgb,
    image_format,
)
from gcdis_ray.errors import DataError

LIMITS = ImageLimits()
RNG = np.random.default_rng(0)
SMOOTH = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (4, 5, 3), np.uint8)).resize(
        (50, 40), Image.Resampling.BICUBIC
    )
)


def saved(pixels: np.ndarray, kind: str, mode: str | None = None, **options) -> bytes:
    image = Image.fromarray(pixels)
    if mode:
        image = image.convert(mode)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (saved(SMOOTH, "JPEG", quality=95), 6),
        (saved(SMOOTH, "JPEG", quality=95, progressive=True), 6),
        (saved(SMOOTH, "JPEG", mode="CMYK", quality=95), 8),
        (saved(SMOOTH, "PNG"), 0),
        (saved(SMOOTH, "PNG", mode="RGBA"), 0),
        (saved(SMOOTH, "WEBP", lossless=True), 0),
        (saved(SMOOTH, "PNG", mode="P"), 40),
    ],
)
def test_colour_pictures(data: bytes, error: int):
    assert check_image(data, LIMITS) == (40, 50)
    pixels = decode_rgb(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 50, 3)
    assert np.abs(pixels.astype(int) - SMOOTH).mean() <= error


def test_grey_pictures():
    grey = np.asarray(Image.fromarray(SMOOTH).convert("L"))
    for data, error in (
        (saved(grey, "JPEG", quality=95), 4),
        (saved(grey, "PNG"), 0),
        (saved(grey.astype(np.uint16) * 256 + 99, "PNG"), 0),
        (saved(np.dstack([grey, grey]), "PNG"), 0),
    ):
        assert check_image(data, LIMITS) == (40, 50)
        pixels = decode_rgb(data)
        assert pixels.shape == (40, 50, 3)
        assert np.abs(pixels.astype(int) - grey[..., None]).mean() <= error
    black_white = decode_rgb(saved(grey, "PNG", mode="1"))
    assert set(np.unique(black_white)) == {0, 255}


def test_exif_turn_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    data = saved(SMOOTH, "JPEG", exif=exif, quality=95)
    assert check_image(data, LIMITS) == (40, 50)
    assert np.abs(decode_rgb(data).astype(int) - SMOOTH).mean() < 6


def test_format_by_content():
    assert image_format(saved(SMOOTH, "WEBP")) == "WEBP"
    assert image_format(saved(SMOOTH, "PNG")) == "PNG"
    assert image_format(saved(SMOOTH, "JPEG")) == "JPEG"


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)]
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that claims to be huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


NOISE = RNG.integers(0, 256, (40, 50, 3), np.uint8)
JPEG, PNG = saved(NOISE, "JPEG", quality=95), saved(NOISE, "PNG")
FLIPPED = bytearray(PNG)
FLIPPED[60] ^= 0xFF


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello, I am text", "not a JPEG"),
        (saved(SMOOTH, "TIFF"), "not a JPEG"),
        (saved(SMOOTH, "GIF"), "not a JPEG"),
        (saved(SMOOTH, "BMP"), "not a JPEG"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (JPEG[:-200], "truncated"),
        (JPEG[:20], "JPEG"),
        (b"\xff\xd8\xff", "JPEG"),
        (PNG[: len(PNG) // 2], "truncated"),
        (PNG[:30], "PNG"),
        (bytes(FLIPPED), "damaged PNG"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 100, "damaged PNG"),
        (b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 30, "WEBP"),
        (animated("PNG"), "animated"),
        (animated("WEBP"), "animated"),
        (bomb(60_000, 60_000), "pixels"),
        (bomb(9_500, 9_500), "pixels"),
        (bomb(8_000, 8_000), "pixels"),
        (bomb(300, 300), "damaged|truncated"),
    ],
)
def test_refused_with_a_reason(data: bytes, reason: str):
    with pytest.raises(DataError, match=reason) as caught:
        check_image(data, LIMITS)
    assert len(str(caught.value)) < 250


def test_limits():
    with pytest.raises(DataError, match="at most 100 are allowed"):
        check_image(JPEG, ImageLimits(max_bytes=100))
    with pytest.raises(DataError, match="40 x 50 pixels"):
        check_image(JPEG, ImageLimits(max_pixels=1999))
    assert check_image(JPEG, ImageLimits(max_pixels=2000)) == (40, 50)


def test_bombs_cost_no_memory(tmp_path: Path):
    code = (
        "import resource, sys; from gcdis_ray.data.images.image_check import *\n"
        "check_image(open(sys.argv[1], 'rb').read(), ImageLimits())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[2:]:\n"
        "    try: check_image(open(path, 'rb').read(), ImageLimits())\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000)\n"
    )
    sizes = [(8_000, 8_000), (30_000, 30_000), (65_000, 1_000), (2**31 - 1, 2**31 - 1)]
    paths = [tmp_path / str(number) for number in range(len(sizes) + 1)]
    for path, data in zip(paths, [JPEG, *(bomb(w, h) for w, h in sizes)], strict=True):
        path.write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["DataError"] * 4 + ["True"], done.stderr


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
@pytest.mark.parametrize("progressive", [False, True])
def test_channels_by_header(mode: str, channels: int, progressive: bool):
    data = saved(SMOOTH, "JPEG", mode=mode, progressive=progressive)
    assert _jpeg_channels(data) == channels
    padded = data[:2] + b"\xff\xff" + data[2:]  # fill bytes may stand before any marker
    assert _jpeg_channels(padded) == channels
    assert _jpeg_channels(data[:30]) == 0
