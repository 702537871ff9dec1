"""``--images FILE[:KEY]``: what of it is the file, and what the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gcdis_ray.evaluation.bare_files import _path_and_key, _read_ids
from gcdis_ray.store.s3 import Prefix


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("val.json", ("val.json", "")),
        ("splits.json:val", ("splits.json", "val")),
        ("/a:b/splits.json:val", ("/a:b/splits.json", "val")),
        ("/a:b/splits.json", ("/a:b/splits.json", "")),
        ("s3://bucket/val.json", ("s3://bucket/val.json", "")),
        ("s3://bucket/splits.json:val", ("s3://bucket/splits.json", "val")),
        ("s3://bucket/a:b/splits.json:images.id", ("s3://bucket/a:b/splits.json", "images.id")),
    ],
)
def test_the_key_follows_the_last_colon(given: str, parts: tuple[str, str]):
    assert _path_and_key(given) == parts


def test_ids_come_from_a_folder_and_from_a_bucket(s3_endpoint: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    text = json.dumps({"val": [3, 1]})
    Prefix(f"s3://bucket/{tmp_path.name}", s3_endpoint).write("s.json", text.encode())
    (tmp_path / "s.json").write_text(text)
    for place in (tmp_path, f"s3://bucket/{tmp_path.name}"):
        assert _read_ids(f"{place}/s.json:val") == [1, 3]
