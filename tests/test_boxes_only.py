"""The small run on objects that have boxes only: those of the truth, half of the labeled, all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_run import contents, gcdis, open_pipeline

pytestmark = pytest.mark.timeout(600)


def _without_masks(small_run, folder: Path, splits: dict[str, int]) -> list[str]:
    """Overrides for a copy of the scenes in which every n-th object of a split has no mask."""
    ours = next(text for text in small_run.overrides if text.startswith("stages.ingest.root="))
    shutil.copytree(ours.split("=", 1)[1], folder / "scenes")
    for split, every in splits.items():
        path = folder / "scenes" / "annotations" / f"{split}.json"
        data = json.loads(path.read_text())
        for row in data["annotations"][::every]:
            del row["segmentation"]
        path.write_text(json.dumps(data))
    return [*small_run.overrides, f"stages.ingest.root={folder / 'scenes'}"]


def _metrics(overrides: list[str]) -> dict[str, Any]:
    return open_pipeline(overrides).artifacts()["evaluate"].json("metrics")


def _ran(overrides: list[str]) -> str:
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.thorough
def test_truth_with_boxes_only(small_run, tmp_path):
    overrides = _without_masks(small_run, tmp_path, {"unlabeled": 1, "validation": 1})
    assert _ran(overrides).count("cached") == 10  # all but ground_truth and evaluate
    before, metrics = _metrics(small_run.overrides), _metrics(overrides)
    detection = metrics["detection"]
    assert detection["mask_ap"] == {"all": None, "known": None, "novel": None}
    assert "ground-truth objects have no mask" in detection["protocol"]["mask"]
    # known classes stand for themselves; discovered ones may be matched otherwise, by boxes
    assert detection["box_ap"]["known"] == before["detection"]["box_ap"]["known"]
    assert detection["box_ap"]["novel"] is not None
    assert metrics["discovery"]["num_crops_scored"] > 0
    assert metrics["coverage"]["labeled_crops_by_mask"]["model"] == 0


@pytest.mark.thorough
def test_half_of_the_labels_with_boxes_only(small_run, tmp_path):
    overrides = _without_masks(small_run, tmp_path, {"labeled": 2})
    _ran([*overrides, "stages.segment.model_masks=use"])
    by_mask = _metrics([*overrides, "stages.segment.model_masks=use"])["coverage"]
    before = _metrics(small_run.overrides)["coverage"]["num_labeled_crops"]
    origins = by_mask["labeled_crops_by_mask"]
    assert origins["annotated"] > 0
    assert origins["model"] > 0.6 * before / 2
    assert origins["box"] == 0
    assert sum(origins.values()) == by_mask["num_labeled_crops"]


def _pinned(small_run) -> list[str]:
    """Overrides that start from the proposer of the small run."""
    earlier = open_pipeline(small_run.overrides).manifest("propose")
    storage = open_pipeline(small_run.overrides).storage.uri
    return [
        f"stages.propose.init.artifact={storage}/propose/{earlier.key}",
        f"stages.propose.init.sha256={earlier.files['proposer'][0].sha256}",
    ]


def test_a_mask_head_without_masks_needs_a_proposer_that_fits(small_run, tmp_path):
    overrides = _without_masks(small_run, tmp_path, {"labeled": 1})
    refused = gcdis("run", overrides)
    assert refused.returncode == 2
    assert "the mask head can learn from nothing" in refused.stderr
    assert "stages.propose.init" in refused.stderr
    assert "Traceback" not in refused.stderr
    pinned = [*overrides, *_pinned(small_run)]
    wrong = gcdis("run", [*pinned, "stages.propose.detector.min_side_px=96"])
    assert wrong.returncode == 2
    assert "min_side_px 128, here 96" in wrong.stderr


@pytest.mark.thorough
def test_all_labels_with_boxes_only(small_run, tmp_path):
    overrides = _without_masks(small_run, tmp_path, {"labeled": 1})
    pinned = _pinned(small_run)
    _ran([*overrides, *pinned])
    origins = _metrics([*overrides, *pinned])["coverage"]["labeled_crops_by_mask"]
    assert origins["annotated"] == 0
    assert origins["model"] > 0
    found = contents([*overrides, *pinned])
    assert found["propose"]["init"] == small_run.contents["propose"]["proposer"]
    report = gcdis("report", [*overrides, *pinned], "--output", str(tmp_path / "page.html"))
    assert report.returncode == 0, report.stderr
    assert "made by the proposer from their boxes" in (tmp_path / "page.html").read_text()
