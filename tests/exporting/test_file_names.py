"""Names of files: held by every file system, and no two alike."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from gcdis_ray.exporting.file_names import ImageNames, distinct_parts, safe_part


def names(uris: Sequence[str]) -> list[str]:
    shards = [
        pa.table({"image_id": [place], "uri": [uri]}) for place, uri in enumerate(uris, start=1)
    ]
    chosen = ImageNames.of(lambda: iter(shards))
    png = b"\x89PNG\r\n\x1a\n"
    return [chosen.name(place, uri, png) for place, uri in enumerate(uris, start=1)]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("novel 1", "novel 1"),
        ("Größe", "Größe"),
        ("a/b:c?", "a_b_c_"),
        ("..", "_"),
        (".hidden", "_.hidden"),
        ("con", "_con"),
        ("NUL.txt", "_NUL.txt"),
        ("end. ", "end"),
        ("a\nb", "a_b"),
        ("", "_"),
        ("x" * 300, "x" * 60),
    ],
)
def test_a_part_is_safe(name: str, safe: str):
    assert safe_part(name) == safe


def test_parts_that_would_be_one_are_numbered():
    assert distinct_parts(["a/b", "a?b", "A_B", "c"]) == ["a_b", "a_b (2)", "A_B (3)", "c"]


def test_the_common_folder_goes():
    assert names(["images/u/1.jpg", "images/u/x/2.jpg"]) == ["1.jpg", "x/2.jpg"]
    assert names(["1.jpg", "x/2.jpg"]) == ["1.jpg", "x/2.jpg"]
    assert names(["a/1.jpg", "ab/2.jpg"]) == ["a/1.jpg", "ab/2.jpg"]
    assert names(["a/1.jpg"]) == ["1.jpg"]


def test_names_that_differ_by_their_ending_or_case_alone_get_the_id():
    assert names(["1.jpg", "1.png", "2.jpg"]) == ["1-1.jpg", "1-2.png", "2.jpg"]
    assert names(["a.jpg", "A.jpg"]) == ["a-1.jpg", "A-2.jpg"]
    assert names(["a.jpg", "a.jpg"]) == ["a-1.jpg", "a-2.jpg"]  # one file in two sets


def test_an_ending_that_no_program_looks_for_is_that_of_the_content():
    assert names(["a", "b.bin", "c.JPG", "c.dat"]) == ["a.png", "b.png", "c-3.JPG", "c-4.png"]


def test_folders_called_images_are_told_from_yolo_s():
    assert names(["a/images/1.jpg", "b/2.jpg"]) == ["a/images_/1.jpg", "b/2.jpg"]
