"""Whose areas say which detections are small, medium and large."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_sets import random_set

from gcdis_ray.cli import main
from gcdis_ray.errors import DataError
from gcdis_ray.metrics.files.file_scores import evaluate_files

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def _files(folder: Path, seed: int = 4) -> tuple[Path, Path]:
    """Results with boxes wider than their masks, often of the next range of areas."""
    truth, results = random_set(seed)
    for row in results:
        x, y, width, height = coco_mask.toBbox(row["segmentation"]).tolist()
        row["bbox"] = [x - width / 2, y - height / 2, 2 * width, 2 * height]
    paths = folder / "truth.json", folder / "results.json"
    for path, value in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(value))
    return paths


def _pycocotools(truth: Path, results: Path, kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        evaluation = COCOeval(gt, gt.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def _numbers(scores: dict[str, Any]) -> list[float]:
    return [-1.0 if scores[name] is None else scores[name] for name in NAMES]


@pytest.mark.parametrize("seed", [3, 4, 16, 26])
def test_areas_of_boxes_give_pycocotools_numbers(tmp_path: Path, seed: int):
    paths = _files(tmp_path, seed)
    found = evaluate_files(*paths, areas="box")
    assert _numbers(found["mask"]) == _pycocotools(*paths, "segm")
    assert _numbers(found["box"]) == _pycocotools(*paths, "bbox")
    assert found["protocol"]["mask"].endswith("detections have the area of their box")


def test_each_kind_has_its_own_areas_unless_told(tmp_path: Path):
    paths = _files(tmp_path)
    own, box, mask = (evaluate_files(*paths, areas=areas) for areas in (None, "box", "mask"))
    assert own["mask"] == mask["mask"] != box["mask"]
    assert own["box"] == box["box"] != mask["box"]
    assert own["mask"]["AP"] == box["mask"]["AP"]  # sizes play no part in it
    assert own["protocol"]["mask"].endswith("area of the mask")


def test_areas_of_masks_want_masks(tmp_path: Path):
    truth, results = _files(tmp_path)
    rows = json.loads(results.read_text())
    del rows[0]["segmentation"]
    results.write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"1 of \d+ detections have no mask"):
        evaluate_files(truth, results, areas="mask")


def test_the_command_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, results = _files(tmp_path)
    files = ["--ground-truth", str(truth), "--results", str(results)]
    assert main(["evaluate", *files, "--json", "--areas", "box"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == evaluate_files(truth, results, areas="box")
    mapped = ["--mapping-source", "detections", "--mapping-scope", "all"]
    assert main(["evaluate", *files, *mapped, "--json", "--areas", "mask"]) == 0
    assert "of their mask" in json.loads(capsys.readouterr().out)["protocol"]["box"]
    assert main(["evaluate", "some.yaml", "--areas", "box"]) == 2
    assert "either a config alone" in capsys.readouterr().err
