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
from PIL import Image, ImageOps

from gcdis_ray.data.images.image_check import (
    ImageLimits,
    _jpeg_frame,
    check_image,
    decode_rgb,
    image_format,
)
from gcdis_ray.data.images.png_chunks import without_metadata
from gcdis_ray.data.images.turns import turn_of, turned_size
from gcdis_ray.errors import DataError

LIMITS = ImageLimits()
SIGNATURE = b"\x89PNG\r\n\x1a\n"
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
    assert check_image(data, LIMITS).stored_hw == (40, 50)
    pixels = decode_rgb(data)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (40, 50, 3)
    assert np.abs(pixels.astype(int) - SMOOTH).mean() <= error


def test_grey_pictures():
    grey = np.asarray(Image.fromarray(SMOOTH).convert("L"))
    for data, error in (
        (saved(grey, "JPEG", quality=95), 4),
        (saved(grey, "PNG"), 0),
        (saved(np.dstack([grey, grey]), "PNG"), 0),
    ):
        assert check_image(data, LIMITS).stored_hw == (40, 50)
        pixels = decode_rgb(data)
        assert pixels.shape == (40, 50, 3)
        assert np.abs(pixels.astype(int) - grey[..., None]).mean() <= error
    black_white = decode_rgb(saved(grey, "PNG", mode="1"))
    assert set(np.unique(black_white)) == {0, 255}


PNG_OF_8_BITS = saved(SMOOTH, "PNG")
COLOUR_TYPES = {0: 1, 2: 3, 4: 2, 6: 4}  # of PNG -> channels


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def deep_png(values: np.ndarray, colour: int, *more: bytes) -> bytes:
    """A PNG of 16 bits a value from (H, W, channels)."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    body = chunk(b"IDAT", zlib.compress(lines))
    return SIGNATURE + b"".join((chunk(b"IHDR", header), *more, body, chunk(b"IEND", b"")))


@pytest.mark.parametrize("colour", COLOUR_TYPES)
@pytest.mark.parametrize("bits", [1, 10, 12, 14, 16])
def test_16_bits_are_stretched_by_the_largest_value(colour: int, bits: int):
    values = RNG.integers(0, 2**bits, (5, 7, COLOUR_TYPES[colour]), np.uint16)
    values[0, 0] = 2**bits - 1
    shown = values[..., : 3 if colour & 2 else 1]
    for more in ([], [chunk(b"gAMA", struct.pack(">I", 45455))], [chunk(b"iCCP", b"rubbish")]):
        data = deep_png(values, colour, *more)
        assert check_image(data, LIMITS).is_16_bit
        pixels = decode_rgb(data)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (5, 7, 3))
        assert np.abs(pixels - shown * (255.0 / (2**bits - 1))).max() <= 0.5


def test_16_bits_of_black_and_of_opacity():
    assert decode_rgb(deep_png(np.zeros((2, 3, 1)), 0)).max() == 0
    values = np.full((2, 3, 4), 100)
    values[..., 3] = 65535  # how opaque a pixel is, is no light
    assert decode_rgb(deep_png(values, 6)).min() == 255
    see_through = chunk(b"tRNS", struct.pack(">HHH", 100, 100, 100))
    assert decode_rgb(deep_png(values[..., :3], 2, see_through)).min() == 255


def test_8_bits_are_not_stretched():
    dark = np.full((2, 3, 3), 16, np.uint8)
    assert not check_image(saved(dark, "PNG"), LIMITS).is_16_bit
    assert (decode_rgb(saved(dark, "PNG")) == 16).all()


def test_a_jpeg_of_12_bits_is_named():
    data = bytearray(saved(SMOOTH, "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(DataError, match="JPEG of 12 bits a value"):
        check_image(bytes(data), LIMITS)


def metadata(name: bytes, num_bytes: int) -> bytes:
    """A chunk that unpacks to so many bytes."""
    packed = zlib.compress(b" " * num_bytes)
    heads = {
        b"iCCP": b"profile\0\0" + packed,
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"XML:com.adobe.xmp\0\1\0\0\0" + packed,
        b"tEXt": b"Comment\0" + b" " * num_bytes,
    }
    return chunk(name, heads[name])


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_metadata_of_any_size_are_passed_over(name: bytes, at_end: bool, deep: bool):
    plain = deep_png(np.arange(24).reshape(2, 4, 3), 2) if deep else saved(SMOOTH, "PNG")
    more = 3 * metadata(name, 3_000_000)
    place = len(plain) - 12 if at_end else 33  # before the end, or behind the header
    data = plain[:place] + more + plain[place:]
    assert without_metadata(data) == plain
    assert without_metadata(plain) is plain
    assert check_image(data, LIMITS) == check_image(plain, LIMITS)
    assert (decode_rgb(data) == decode_rgb(plain)).all()


def test_damage_beside_metadata_is_still_found():
    plain = saved(SMOOTH, "PNG")
    data = plain[:33] + metadata(b"iTXt", 3_000_000) + plain[33:]
    for damaged in (data[:-200], data[:100], plain[:33] + metadata(b"tEXt", 99)[:50]):
        with pytest.raises(DataError, match="damaged"):
            check_image(damaged, LIMITS)
    crowd = plain[:33] + 100_000 * chunk(b"tEXt", b"") + plain[33:]
    with pytest.raises(DataError, match="more than 100,000 chunks"):
        check_image(crowd, LIMITS)


def with_wrong_sum(data: bytes) -> bytes:
    return data[:-4] + bytes(byte ^ 255 for byte in data[-4:])


ANCILLARY = {
    "large": chunk(b"caBX", bytes(9_000_000)),
    "large and private": chunk(b"prVt", bytes(9_000_000)),
    "large EXIF": chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0" + bytes(9_000_000)),
    "damaged": with_wrong_sum(chunk(b"tIME", bytes(7))),
    "wrong": chunk(b"tRNS", b"\0"),
    "impossible": chunk(b"gAMA", bytes(4)) + chunk(b"cHRM", b"\xff" * 32),
}


@pytest.mark.parametrize("more", ANCILLARY.values(), ids=ANCILLARY)
@pytest.mark.parametrize("plain", [deep_png(np.arange(24).reshape(2, 4, 3), 2), PNG_OF_8_BITS])
def test_chunks_that_are_no_picture_are_passed_over(plain: bytes, more: bytes):
    for place in (33, len(plain) - 12):
        data = plain[:place] + more + plain[place:]
        assert check_image(data, LIMITS) == check_image(plain, LIMITS)
        assert (decode_rgb(data) == decode_rgb(plain)).all()


@pytest.mark.parametrize("colour", COLOUR_TYPES)
def test_what_is_accepted_decodes(colour: int):
    """Whatever is cut off or spoiled: the check and the decoder agree."""
    whole = deep_png(RNG.integers(0, 4096, (5, 7, COLOUR_TYPES[colour]), np.uint16), colour)
    spoiled = [whole[:end] for end in range(33, len(whole))]
    for place in range(len(whole)):
        spoiled.append(whole[:place] + bytes([whole[place] ^ 0x11]) + whole[place + 1 :])
    accepted = 0
    for data in [whole, whole + b"more", *spoiled]:
        try:
            facts = check_image(data, LIMITS)
        except DataError:
            continue
        accepted += 1
        assert decode_rgb(data).shape == (*facts.stored_hw, 3)
    assert accepted >= 2


def test_a_picture_of_a_size_that_the_decoder_does_not_take():
    data = deep_png(np.zeros((1, 1_100_000, 1), np.uint16), 0)
    with pytest.raises(DataError, match="of a kind that is not read"):
        check_image(data, LIMITS)


def test_a_jpeg_that_one_decoder_does_not_know(monkeypatch):
    monkeypatch.setattr("cv2.imdecode", lambda data, flags: None)
    pixels = decode_rgb(saved(SMOOTH, "JPEG", quality=95))
    assert np.abs(pixels.astype(int) - SMOOTH).mean() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns(kind: str, turn: int):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}}[kind]
    data = saved(SMOOTH, kind, exif=exif, **options)
    facts = check_image(data, LIMITS)
    assert (facts.stored_hw, facts.turn) == ((40, 50), turn)
    stored = decode_rgb(data)
    assert np.abs(stored.astype(int) - SMOOTH).mean() < 6
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    pixels = decode_rgb(data, turn)
    assert pixels.flags.c_contiguous
    assert pixels.shape[:2] == turned_size(turn, 40, 50)
    assert np.abs(pixels.astype(int) - shown).max() <= (2 if kind == "JPEG" else 0)


def test_exif_that_says_nothing():
    for turn in (0, 9, 600):
        exif = Image.Exif()
        exif[0x0112] = turn
        assert turn_of(exif.tobytes()) == 1
    other = Image.Exif()
    other[0x010F] = "a camera"
    for block in (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"rubbish", other.tobytes()):
        assert turn_of(block) == 1
    six = Image.Exif()
    six[0x010F], six[0x0112] = "a camera", 6
    block = six.tobytes()
    assert turn_of(block) == turn_of(block.removeprefix(b"Exif\0\0")) == 6
    for end in range(len(block)):
        assert turn_of(block[:end]) in (1, 6)
    big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0\0\0\0\0"
    assert turn_of(big) == 8


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

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


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
    assert check_image(JPEG, ImageLimits(max_pixels=2000)).stored_hw == (40, 50)


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
    assert _jpeg_frame(data) == (8, channels)
    padded = data[:2] + b"\xff\xff" + data[2:]  # fill bytes may stand before any marker
    assert _jpeg_frame(padded) == (8, channels)
    assert _jpeg_frame(data[:30]) == (0, 0)
