"""Letters as small pictures of strokes, like scikit-learn's handwritten digits.

Drawn from the DejaVu fonts that matplotlib carries, each face slanted and stretched a little, so
that no two samples of a letter are alike.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from string import ascii_uppercase as ALPHABET

import numpy as np

from gcdis_ray.errors import DataError

__all__ = ["ALPHABET", "samples"]

_FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Oblique",
)  # fmt: skip
_SLANTS = (-0.25, -0.1, 0.0, 0.1, 0.25)
_STRETCHES = (0.75, 0.9, 1.0)  # width of a letter over that of its face
_SIDE = 8  # cells, as of the digits
_DARK = 1.6  # ink over what covers a cell: strokes of type are thinner than those of a pen
_CELL_PX = 16  # a letter is drawn that much larger, then averaged


def samples(letter: str) -> np.ndarray:
    """One for each face, slant and stretch: (n, 8, 8) float64, ink in [0, 1].

    Raises:
        DataError: no capital letter of the alphabet, or the fonts are gone.
    """
    if len(letter) != 1 or letter not in ALPHABET:
        raise DataError(
            f"{letter!r} is no letter that can be drawn", where="--letter", fix="one of A to Z"
        )
    found = find_spec("matplotlib")
    places = (found.submodule_search_locations if found else None) or [""]
    folder = Path(places[0], "mpl-data/fonts/ttf")
    if not (folder / f"{_FACES[0]}.ttf").is_file():
        raise DataError("matplotlib brings no DejaVu fonts here", where=str(folder))
    return np.stack(
        [
            _sample(letter, str(folder / f"{face}.ttf"), slant, stretch)
            for face in _FACES
            for slant in _SLANTS
            for stretch in _STRETCHES
        ]
    )


def _sample(letter: str, font: str, slant: float, stretch: float) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    side = _SIDE * _CELL_PX
    face = ImageFont.truetype(font, side, layout_engine=ImageFont.Layout.BASIC)
    wide = Image.new("L", (3 * side, 2 * side))
    ImageDraw.Draw(wide).text((side, side // 4), letter, fill=255, font=face)
    middle = wide.height / 2
    leant = wide.transform(
        wide.size,
        Image.Transform.AFFINE,
        (1, slant, -slant * middle, 0, 1, 0),
        Image.Resampling.BILINEAR,
    )
    tight = leant.crop(leant.getbbox())
    width = max(_CELL_PX, min(side, round(side * stretch * tight.width / tight.height)))
    ink = np.zeros((side, side))
    left = (side - width) // 2
    ink[:, left : left + width] = np.asarray(tight.resize((width, side))) / 255
    covered = ink.reshape(_SIDE, _CELL_PX, _SIDE, _CELL_PX).mean(axis=(1, 3))
    return np.minimum(_DARK * covered, 1)
