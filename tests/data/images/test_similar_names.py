"""Names that are almost those of missing files: told, with what differs."""

from __future__ import annotations

import unicodedata

import pytest

from gcdis_ray.data.images.similar_names import similar_names

NFC, NFD = (unicodedata.normalize(form, "blätter/köln.jpg") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("name", "there", "words"),
    [
        (NFC, NFD, f"there is {NFD}: the same letters, composed otherwise (Unicode NFC, NFD)"),
        (NFD, NFC, f"there is {NFC}: the same letters, composed otherwise (Unicode NFC, NFD)"),
        ("a/7.jpg", "a/7.JPG", "there is a/7.JPG: other capital letters"),
        ("A/7.jpg", "a/7.jpg", "there is a/7.jpg: other capital letters"),
        ("my%20cat.jpg", "my cat.jpg", "there is my cat.jpg: %20 and the like written out"),
        ("my cat.jpg", "my%20cat.jpg", "there is my%20cat.jpg: %20 and the like written out"),
        ("k%C3%B6ln.jpg", "köln.jpg", "there is köln.jpg: %20 and the like written out"),
        ("a\\7.jpg", "a/7.jpg", "there is a/7.jpg: another slash"),
        ("my%20CAT.jpg", "my cat.jpg", "there is my cat.jpg: almost the same letters"),
        ("my+cat.jpg", "my cat.jpg", "there is my cat.jpg: almost the same letters"),
        ("7.jpg ", "7.jpg", "there is 7.jpg: almost the same letters"),
        ("images/7.jpg", "7.jpg", "there is 7.jpg: without the folder images"),
        ("data/images/7.jpg", "7.JPG", "there is 7.JPG: without the folder data/images"),
        ("images\\train\\7.jpg", "7.jpg", "there is 7.jpg: without the folder images/train"),
        ("7.jpg", "train/7.jpg", "there is train/7.jpg: in a folder below"),
        ("a/7.jpg", "a/7.png", "there is a/7.png: another suffix"),
        ("a/7.jpg", "a/7", "there is a/7: another suffix"),
    ],
)
def test_what_differs_is_said(name: str, there: str, words: str):
    assert similar_names([name], ["other.jpg", there, "b/8.jpg"]) == {name: words}


def test_what_is_hardly_alike_is_not():
    assert similar_names(["a/7.jpg"], ["b/7.jpg", "8.jpg", "a/77.jpg", "a.7/jpg"]) == {}
    assert similar_names([], ["b/7.jpg"]) == {}
    assert similar_names(["7.jpg"], []) == {}


def test_the_most_alike_is_told():
    found = similar_names(["7.jpg"], ["c/7.jpg", "7.png", "7.JPG"])
    assert found == {"7.jpg": "there is 7.JPG: other capital letters"}
    found = similar_names(["7.jpg"], ["c/7.jpg", "a/7.jpg"])
    assert found == {"7.jpg": "there are 2 such as a/7.jpg: in a folder below"}


def test_what_cannot_have_been_meant_is_not_told():
    there = ["7.txt", "7.png"]
    found = similar_names(["7.jpg"], there, lambda name: not name.endswith(".txt"))
    assert found == {"7.jpg": "there is 7.png: another suffix"}


def test_names_of_any_bytes_can_be_printed():
    found = similar_names(["x/7.jpg"], ["caf\udce9/x/7.jpg", "caf\udce9/x/y/7.jpg"])
    assert found == {"x/7.jpg": "there is 'caf\\udce9/x/7.jpg': in a folder below"}
    similar_names(["caf\udce9/7.jpg"], ["7.jpg"])["caf\udce9/7.jpg"].encode()
