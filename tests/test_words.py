"""What messages say of values and numbers."""

from __future__ import annotations

from gcdis_ray.words import counted, cut, shown, some


def test_values_of_any_length_fit_a_line():
    assert cut("a/b.jpg") == "a/b.jpg"
    long = cut("a" * 500 + "/" + "b" * 500 + ".jpg")
    assert len(long) == 80
    assert long.endswith("b.jpg")
    assert len(shown(10**300)) == len(shown(["x" * 1000] * 1000)) == 80
    assert shown("x\n") == r"'x\n'"
    assert some(["a", 5], 2) == "'a', 5"
    assert some(["x" * 1000, *range(2000)], 2) == f"{shown('x' * 1000)}, 0 and 1,999 more"


def test_numbers_have_their_nouns():
    assert counted(1, "image") == "1 image"
    assert counted(2000, "image") == "2,000 images"
    assert counted(0, "image occurs", "images occur") == "0 images occur"
