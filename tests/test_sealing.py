"""Annotations of unlabeled images reach nothing before evaluate: no key depends on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_run import open_pipeline, small_overrides


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


def test_labeled_annotations_do_change_the_keys(tmp_path: Path):
    overrides = small_overrides(tmp_path)
    before = _keys(overrides)
    path = tmp_path / "scenes" / "annotations" / "labeled.json"
    data = json.loads(path.read_text())
    _permuted(data)
    path.write_text(json.dumps(data))
    after = _keys(overrides)
    assert all(before[name] != after[name] for name in before if name != "ground_truth")
