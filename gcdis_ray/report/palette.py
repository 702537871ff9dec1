"""One colour per class, told apart on paper, on screens and on photographs, light or dark."""

from __future__ import annotations

import math

_GOLDEN_TURN = 137.508  # degrees: consecutive indices land far apart on the hue circle


def oklch_to_hex(lightness: float, chroma: float, hue_deg: float) -> str:
    """sRGB hex code of an OKLCH colour (Ottosson 2020), clipped to the gamut.

    Args:
        lightness: perceived, in [0, 1].
        chroma: 0 is grey, 0.2 is vivid.
        hue_deg: in degrees.
    """
    a = chroma * math.cos(math.radians(hue_deg))
    b = chroma * math.sin(math.radians(hue_deg))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(max(v, 0.0), 1.0))):02x}" for v in linear)


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def class_color(class_index: int, known: bool) -> str:
    """Hex code. Known classes are muted, discovered ones vivid: the eye goes to the news."""
    hue = (25 + class_index * _GOLDEN_TURN) % 360
    lightness = 0.70 + 0.05 * (class_index % 3 - 1)
    return oklch_to_hex(lightness, 0.075 if known else 0.18, hue)


def rgb(color: str) -> tuple[int, int, int]:
    """Components in 0..255 of ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def ink_on(color: str) -> str:
    """Black or white, whichever reads better on ``color`` (relative luminance)."""
    red, green, blue = rgb(color)
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
