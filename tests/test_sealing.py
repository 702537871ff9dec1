"""Annotations of unlabeled images reach nothing before evaluate: no key depends on them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import contents, gcdis, open_pipeline, small_overrides


def _permuted(data: dict[str, Any]) -> None:
    categories = [a["category_id"] for a in data["annotations"]]
    random.Random(0).shuffle(categories)
    for annotation, category in zip(data["annotations"], categories, strict=True):
        annotation["category_id"] = category


def _deleted(data: dict[str, Any]) -> None:
    data["annotations"] = []


def _keys(overrides: list[str]) -> dict[str, str]:
    return {name: node.key for name, node in open_pipeline(overrides).nodes.items()}


@pytest.mark.parametrize("change", [_permuted, _deleted])
@pytest.mark.parametrize("split", ["unlabeled", "validation"])
def test_no_key_before_evaluate_depends_on_them(
    tmp_path: Path, split: str, change: Callable[[dict[str, Any]], None]
):
    overrides = small_overrides(tmp_path)
    before = _keys(overrides)
    path = tmp_path / "scenes" / "annotations" / f"{split}.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    after = _keys(overrides)
    assert {name for name in before if before[name] != after[name]} == {"ground_truth", "evaluate"}


def _with_other_truth(
    small_run, folder: Path, **changes: Callable[[dict[str, Any]], None]
) -> list[str]:
    """Overrides of the small run, from nothing, on data whose sealed annotations differ."""
    root = next(o.partition("=")[2] for o in small_run.overrides if "ingest.root=" in o)
    shutil.copytree(root, folder / "scenes")
    for split, change in changes.items():
        path = folder / "scenes" / "annotations" / f"{split}.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
    return [
        *small_run.overrides,
        f"storage={folder / 'storage'}",
        f"stages.ingest.root={folder / 'scenes'}",
    ]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_no_byte_before_evaluate_depends_on_them_nor_on_the_runtime(
    tmp_path: Path, small_run, ray_address
):
    """The whole small run again, on Ray."""
    overrides = [
        *_with_other_truth(small_run, tmp_path, unlabeled=_permuted, validation=_permuted),
        "compute.runtime=ray",
        f"compute.address={ray_address}",
        "compute.workers=1",
        "compute.data_workers=1",
    ]
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    found, expected = contents(overrides), dict(small_run.contents)
    for name in ("ground_truth", "evaluate"):
        assert found.pop(name) != expected.pop(name)
    assert found == expected


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_no_byte_before_evaluate_depends_on_annotations_that_are_not_there(
    tmp_path: Path, small_run
):
    overrides = _with_other_truth(small_run, tmp_path, unlabeled=_permuted, validation=_deleted)
    done = gcdis("run", overrides, "--until", "segment")
    assert done.returncode == 0, done.stderr
    found, expected = contents(overrides), dict(small_run.contents)
    assert found.pop("ground_truth") != expected.pop("ground_truth")
    del expected["predict"], expected["evaluate"]
    assert found == expected


def test_labeled_annotations_do_change_the_keys(tmp_path: Path):
    overrides = small_overrides(tmp_path)
    before = _keys(overrides)
    path = tmp_path / "scenes" / "annotations" / "labeled.json"
    data = json.loads(path.read_text())
    _permuted(data)
    path.write_text(json.dumps(data))
    after = _keys(overrides)
    assert all(before[name] != after[name] for name in before if name != "ground_truth")
