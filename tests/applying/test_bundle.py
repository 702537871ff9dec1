"""Bundles: written once, held to what they say, refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcdis_ray.applying.bundle import read_bundle, write_bundle
from gcdis_ray.applying.opening import open_trained
from gcdis_ray.applying.trained import Trained
from gcdis_ray.errors import ArtifactError, GcdisError, StorageError
from gcdis_ray.store.storage import LocalStorage, file_record

WEIGHTS = b"weights of a segmenter"


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    storage = LocalStorage(str(tmp_path / "run"))
    storage.write("weights", WEIGHTS)
    table = [
        {"class_index": 0, "name": "cat", "known": True, "category_id": 17},
        {"class_index": 1, "name": "novel 1", "known": False, "category_id": None},
    ]
    record = file_record("weights", WEIGHTS)
    limits = {"min_score": 0.1, "max_per_image": 7}
    return Trained(
        "mine", storage, "weights", record.bytes, record.sha256,
        {"kind": "toy", "num_classes": 2}, table, ["cat", "zebra"], limits,
    )  # fmt: skip


@pytest.fixture
def bundle(trained: Trained, tmp_path: Path) -> Path:
    assert write_bundle(trained, str(tmp_path / "bundle"))
    return tmp_path / "bundle"


def test_a_bundle_is_all_of_it_wherever_it_lies(trained: Trained, bundle: Path, tmp_path: Path):
    shutil.rmtree(tmp_path / "run")
    found = open_trained(str(bundle.rename(tmp_path / "moved")))
    assert found.read_weights() == WEIGHTS
    assert found.classes == trained.classes
    assert [(c.name, c.known, c.category_id) for c in found.classes] == [
        ("cat", True, 17),
        ("zebra", False, 18),
    ]
    assert (found.name, found.spec, found.limits) == (trained.name, trained.spec, trained.limits)


def test_the_same_bundle_is_left_alone(trained: Trained, bundle: Path):
    before = {path: path.stat().st_mtime_ns for path in bundle.iterdir()}
    assert not write_bundle(trained, str(bundle))
    assert {path: path.stat().st_mtime_ns for path in bundle.iterdir()} == before
    again = bundle.with_name("again")
    write_bundle(trained, str(again))
    for path in bundle.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_an_interrupted_bundle_is_finished(trained: Trained, bundle: Path):
    (bundle / "segmenter.safetensors").unlink()
    assert write_bundle(trained, str(bundle))
    assert open_trained(str(bundle)).read_weights() == WEIGHTS


@pytest.mark.parametrize("name", ["notes.txt", "bundle.json"])
def test_another_folder_is_refused(trained: Trained, tmp_path: Path, name: str):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / name).write_text("{}")
    with pytest.raises(StorageError, match="not empty"):
        write_bundle(trained, str(tmp_path / "full"))


def rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def spoil(bundle: Path) -> None:
        told = json.loads((bundle / "bundle.json").read_text())
        change(told)
        (bundle / "bundle.json").write_text(json.dumps(told))

    return spoil


def flip(bundle: Path) -> None:
    data = bytearray((bundle / "segmenter.safetensors").read_bytes())
    data[3] ^= 1
    (bundle / "segmenter.safetensors").write_bytes(data)


def cut(bundle: Path) -> None:
    text = (bundle / "bundle.json").read_text()
    (bundle / "bundle.json").write_text(text[: len(text) // 2])


def nested(folder: Path) -> None:
    (folder / "bundle.json").write_text("[" * 200_000)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "segmenter.safetensors: file is damaged"),
        (lambda b: (b / "segmenter.safetensors").unlink(), "segmenter.safetensors: file is gone"),
        (cut, "no bundle's table"),
        (lambda b: (b / "bundle.json").write_text("[]"), "no bundle's table"),
        (rewrite(lambda told: told.update(format=2)), "format 2; known: 1"),
        (rewrite(lambda told: told.pop("detector")), "lacks detector"),
        (rewrite(lambda told: told["names"].reverse()), "class table is not the one"),
        (rewrite(lambda told: told["classes"].pop()), "class table is not the one"),
        (rewrite(lambda told: told["limits"].update(min_score=0.9)), "damaged (SHA-256"),
        (rewrite(lambda told: told.update(limits={})), "missing key 'limits.min_score'"),
        (rewrite(lambda told: told.update(classes=[1])), "'classes.0'"),
        (rewrite(lambda told: told.update(classes=float("nan"))), "'classes'"),
        (rewrite(lambda told: told["names"].pop()), "class table is not the one"),
        (rewrite(lambda told: told["files"].clear()), "damaged (SHA-256"),
        (nested, "no bundle's table"),
    ],
)
def test_a_spoiled_bundle_is_refused(bundle: Path, spoil: Callable[[Path], None], said: str):
    spoil(bundle)
    with pytest.raises(ArtifactError) as raised:
        open_trained(str(bundle)).read_weights()
    assert said in str(raised.value)


def test_an_empty_folder_is_neither(tmp_path: Path):
    with pytest.raises(ArtifactError, match="no bundle lies there"):
        read_bundle(LocalStorage(str(tmp_path)))
    with pytest.raises(GcdisError, match="no run lies there"):
        open_trained(str(tmp_path))


def test_a_bucket_holds_bundles(trained: Trained, s3_endpoint: str, monkeypatch: Any):
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    assert write_bundle(trained, "s3://bucket/bundle")
    assert not write_bundle(trained, "s3://bucket/bundle")
    found = open_trained("s3://bucket/bundle")
    assert (found.read_weights(), found.classes) == (WEIGHTS, trained.classes)
