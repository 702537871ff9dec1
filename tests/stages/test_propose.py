"""The propose stage on the local runtime: trained, and with masks from a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scene_tables import TINY, rectangle_scenes

from gcdis_ray.data.masks import iou_matrix
from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.stages import propose


@pytest.fixture(scope="module")
def rectangles():
    return rectangle_scenes(["labeled"] * 3 + ["unlabeled", "validation"])


def _config(**changes):
    base = {
        "detector": TINY.model_dump(),
        "training": {"steps": 60, "batch_size": 6, "optimizer": "adamw", "lr": 5e-3},
        "augment": {"scale_jitter": 0.0},
        "nms_iou": 0.5,
    }
    return propose.Config.model_validate(base | changes)


def test_finds_the_rectangles_of_unlabeled_images(rectangles, local_work):
    propose.run({"ingest": rectangles.ingest}, _config(), local_work)
    assert set(local_work.files) == {"proposals", "history", "proposer", "proposer_spec"}
    found = local_work.table("proposals")
    assert [found.shard(i).num_rows > 0 for i in range(5)] == [False, False, False, True, False]
    rows = found.read().to_pylist()
    recalled = []
    for image_id in range(400, 406):
        masks = [row["mask_rle"] for row in rows if row["image_id"] == image_id]
        truth = [row["mask_rle"] for row in rectangles.truth[image_id]]
        overlap = iou_matrix(truth, masks, 64, 64)
        recalled += [bool(row.size) and row.max() >= 0.5 for row in overlap]
    assert np.mean(recalled) >= 0.75


class TestExternal:
    def _results(self, rectangles, tmp_path, *more):
        entries = [
            {
                "image_id": row["image_id"],
                "segmentation": {"size": [64, 64], "counts": row["mask_rle"]},
                "score": 0.8,
            }
            for image_id in range(400, 406)
            for row in rectangles.truth[image_id]
        ]
        path = tmp_path / "masks.json"
        path.write_text(json.dumps([*entries, *more]))
        return path

    def _config(self, path, **changes):
        return _config(source="external", external={"results": str(path)} | changes)

    def test_masks_become_proposals(self, rectangles, local_work, tmp_path):
        stranger = {"image_id": 100, "segmentation": [], "score": 1}
        config = self._config(self._results(rectangles, tmp_path, stranger))
        propose.run({"ingest": rectangles.ingest}, config, local_work)
        assert "proposer" not in local_work.files
        assert local_work.counts["external_other_images"] == 1
        found = local_work.table("proposals").read().to_pylist()
        truth = [row["mask_rle"] for i in range(400, 406) for row in rectangles.truth[i]]
        assert [row["mask_rle"] for row in found] == truth
        assert local_work.table("history").num_rows == 0

    def test_too_many_unusable(self, rectangles, local_work, tmp_path):
        broken = {"image_id": 400, "segmentation": [[1, 2]], "score": 1}
        path = self._results(rectangles, tmp_path, broken)
        with pytest.raises(DataError, match="1 of 13 masks cannot be used"):
            propose.run({"ingest": rectangles.ingest}, self._config(path), local_work)

    def test_unusable_within_the_limit(self, rectangles, local_work, tmp_path):
        broken = {"image_id": 400, "segmentation": [[1, 2]], "score": 1}
        config = self._config(self._results(rectangles, tmp_path, broken), max_rejected=0.1)
        propose.run({"ingest": rectangles.ingest}, config, local_work)
        assert local_work.table("quarantine").num_rows == 1
        assert local_work.table("proposals").num_rows == 12

    def test_source_is_the_file(self, rectangles, tmp_path):
        path = self._results(rectangles, tmp_path)
        first = propose.source(self._config(path))
        path.write_text(path.read_text() + " ")
        assert propose.source(self._config(path)) != first
        assert propose.source(_config()) == ""
        with pytest.raises(ConfigError, match="No such file"):
            propose.source(self._config(tmp_path / "missing.json"))

    def test_file_must_be_named(self):
        with pytest.raises(ConfigError, match=r"external\.results"):
            _config(source="external")


def test_key_is_what_changes_the_result():
    assert _config(image_cache_mb=5).key_fields() == _config().key_fields()
    pinned = [
        TINY.model_copy(update={"weights": path, "weights_sha256": 64 * digit}).model_dump()
        for path, digit in (("here", "0"), ("there", "0"), ("there", "1"))
    ]
    here, there, other = (_config(detector=detector).key_fields() for detector in pinned)
    assert here == there
    assert there != other
    assert _config(min_score=0.5).key_fields() != _config().key_fields()
