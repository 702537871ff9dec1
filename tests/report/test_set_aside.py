"""What the report says of image files that came in otherwise than they lie."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gcdis_ray.report.set_aside import _counted


def said(**counts: int) -> list[str]:
    made = SimpleNamespace(manifest=SimpleNamespace(counts=counts))
    view: Any = SimpleNamespace(of=lambda member: made)
    return list(_counted(view))


def test_turned_deep_and_other_files_are_told():
    assert said(images_turned=0, images_missing=3) == []
    assert said(images_turned=1, images_16_bit_stretched=2) == [
        "1 image turned as the camera noted in EXIF.",
        "2 images of 16 bits stretched by the largest value of each.",
    ]
    assert said(images_turn_ignored=2) == ["2 images with a turn in EXIF that was ignored."]
    assert said(**{"files_left_out: .gif": 2, "files_left_out: .bmp": 1}) == [
        "3 other files in image folders left out (1 .bmp, 2 .gif)."
    ]
