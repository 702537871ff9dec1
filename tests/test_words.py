"""What messages say of values and numbers."""

from __future__ import annotations

from gcdis_ray.words import counted, cut, duration, printed, shown, size, some


def test_values_of_any_length_fit_a_line():
    assert cut("a/b.jpg") == "a/b.jpg"
    long = cut("a" * 500 + "/" + "b" * 500 + ".jpg")
    assert len(long) == 80
    assert long.endswith("b.jpg")
    assert len(shown(10**300)) == len(shown(["x" * 1000] * 1000)) == 80
    assert shown("x\n") == r"'x\n'"
    assert some(["a", 5], 2) == "'a', 5"
    assert some(["x" * 1000, *range(2000)], 2) == f"{shown('x' * 1000)}, 0 and 1,999 more"


def test_names_of_any_bytes_can_be_printed():
    assert printed("é.jpg") == "é.jpg"
    assert printed("\udce9\n.jpg") == "'\\udce9\\n.jpg'"


def test_numbers_have_their_nouns():
    assert counted(1, "image") == "1 image"
    assert counted(2000, "image") == "2,000 images"
    assert counted(0, "image occurs", "images occur") == "0 images occur"


def test_sizes_and_durations_have_their_units():
    assert [size(n) for n in (0, 999, 3.2e6, 5e13)] == ["0 B", "999 B", "3.2 MB", "50.0 TB"]
    told = [duration(s) for s in (0.4, 59.6, 125, 3725)]
    assert told == ["0 s", "1 min 00 s", "2 min 05 s", "1 h 02 min"]
    assert [duration(s, tenths=True) for s in (0.44, 125)] == ["0.4 s", "2 min 05 s"]
