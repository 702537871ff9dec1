"""Masks from outside: what is accepted, what is refused, and why."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scene_tables import memory_table, rectangle_scenes

from gcdis_ray.artifacts import check_schema
from gcdis_ray.data.masks import decode
from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.tasks.external_masks import ImportMasks, check_refused, proposal_id, read_results


@pytest.fixture(scope="module")
def rectangles():
    return rectangle_scenes()


def _entry(image_id=300, **changes):
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    return {"image_id": image_id, "segmentation": square, "score": 0.5} | changes


def _import(rectangles, entries, **options):
    run = ImportMasks(**({"min_score": 0.0, "max_per_image": 10} | options)).open()
    return run(2, rectangles.images.shard(2), entries=entries)


class TestImport:
    def test_polygons_and_rle(self, rectangles):
        truth = rectangles.truth[301][0]
        rle = {"size": [64, 64], "counts": truth["mask_rle"]}
        entries = [_entry(), _entry(301, segmentation=rle, score=1)]
        found = _import(rectangles, entries)
        assert found["quarantine"].num_rows == 0
        first, second = check_schema("proposals", found["proposals"]).to_pylist()
        assert np.array_equal(
            np.flatnonzero(decode(first["mask_rle"], 64, 64).any(0))[[0, -1]], [10, 29]
        )
        assert second["mask_rle"] == truth["mask_rle"]
        assert second["bbox_xyxy"] == truth["bbox_xyxy"]
        assert second["area_px"] == truth["area_px"]
        assert second["origin"] == "external"
        assert [first["proposal_id"], second["proposal_id"]] == [
            proposal_id(2, 0),
            proposal_id(2, 1),
        ]

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"score": 1.5}, "score"),
            ({"score": float("nan")}, "score"),
            ({"score": "high"}, "score"),
            ({"score": True}, "score"),
            ({"segmentation": None}, "neither"),
            ({"segmentation": {"size": [3, 3], "counts": [9]}}, "outside"),
            ({"segmentation": {"size": [64, 64], "counts": [4096]}}, "empty"),
            ({"segmentation": [[1, 1, 500, 1, 500, 500]]}, "outside"),
        ],
    )
    def test_refused_with_the_reason(self, rectangles, changes, reason):
        found = _import(rectangles, [_entry(**changes), _entry()])
        assert found["proposals"].num_rows == 1
        refused = check_schema("quarantine", found["quarantine"]).to_pylist()
        assert refused[0]["uri"] == "image 300"
        assert reason in refused[0]["reason"]

    def test_best_of_each_image(self, rectangles):
        scores = [0.2, 0.9, 0.4, 0.05]
        found = _import(
            rectangles, [_entry(score=s) for s in scores], min_score=0.1, max_per_image=2
        )
        kept = found["proposals"]["objectness"].to_pylist()
        assert kept == pytest.approx([0.9, 0.4])


class TestRead:
    def test_by_shard_of_the_image(self, rectangles, tmp_path):
        path = tmp_path / "results.json"
        path.write_text(json.dumps([_entry(300), _entry(305), _entry(100), _entry("x"), _entry(9)]))
        args, strangers = read_results(str(path), rectangles.images)
        assert [len(shard["entries"]) for shard in args] == [0, 0, 2, 0]
        assert strangers == 3  # of a labeled image, of no image, without a number

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("[1, 2]", DataError, "no object"),
            ('[{"image_id"', DataError, "not JSON"),
            ("[]", DataError, "no entry"),
            ('[{"image_id": 100}]', DataError, "no entry"),
            (None, ConfigError, "No such file"),
        ],
    )
    def test_bad_files(self, rectangles, tmp_path, text, error, message):
        path = tmp_path / "results.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(error, match=message):
            read_results(str(path), rectangles.images)


def test_limit_on_refused():
    rows = [{"split": "unlabeled", "uri": "image 5", "reason": "empty mask"}] * 2
    refused = memory_table("quarantine", [rows])
    check_refused(refused, 200, 0.01)
    with pytest.raises(DataError, match=r"2 of 100 .*image 5: empty mask"):
        check_refused(refused, 100, 0.01)
