"""The propose stage on the local runtime: trained, and with masks from a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scene_tables import TINY, FakeArtifact, boxes_only, memory_table, rectangle_scenes
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.masks.coco_rle import iou_matrix
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.stages import propose
from gcdis_ray.store.artifacts import Manifest
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.source import LocalFolder
from gcdis_ray.store.storage import LocalStorage


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
    propose.run(inputs_of(propose, {"ingest": rectangles.ingest}), _config(), local_work)
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


class TestBoxesOnly:
    def _ingest(self, rectangles, every=1):
        bare = boxes_only(rectangles.instances, every)
        return {"ingest": FakeArtifact({"images": rectangles.images, "instances": bare})}

    def _earlier(self, folder, detector=TINY, spec=None):
        """An artifact of an earlier run on disk, and what pins it."""
        storage = LocalStorage(str(folder))
        attempt = Attempt(storage, "propose/key", "attempt-0", SCHEMAS)
        files = {
            "proposer": [attempt.tensors("proposer", build_mask_rcnn(detector, 1, 7).state_dict())],
            "proposer_spec": [attempt.json("proposer_spec", spec or detector_spec(detector, 1))],
        }
        manifest = Manifest("propose", "key", 1, {}, {}, 0, None, files)
        path = folder / "propose" / "key"
        (path / "manifest.json").write_text(manifest.to_json())
        return {"artifact": str(path), "sha256": files["proposer"][0].sha256}

    def test_the_mask_head_fills_in(self, rectangles, local_work):
        propose.run(inputs_of(propose, self._ingest(rectangles, every=2)), _config(), local_work)
        assert local_work.counts["objects_without_mask"] == 18
        truth = {r["instance_id"]: r for rows in rectangles.truth.values() for r in rows}
        made = local_work.table("instance_masks")
        assert made.num_shards == 5
        rows = made.read().to_pylist()
        overlaps = [
            iou_matrix([row["mask_rle"]], [truth[row["instance_id"]]["mask_rle"]], 64, 64)[0, 0]
            for row in rows
        ]
        assert len(rows) >= 17
        assert np.mean(overlaps) >= 0.75

    def test_nothing_to_learn_masks_from(self, rectangles, local_work):
        with pytest.raises(
            DataError, match=r"36 of 36 labeled objects have a box.*learn from"
        ) as e:
            propose.run(inputs_of(propose, self._ingest(rectangles)), _config(), local_work)
        assert e.value.where == "stages.propose.init"
        assert not local_work.files

    def test_an_earlier_mask_head_stays_as_it_was(self, rectangles, local_work, tmp_path):
        config = _config(init=self._earlier(tmp_path), training={"steps": 2, "batch_size": 2})
        propose.check(config, {})
        propose.run(inputs_of(propose, self._ingest(rectangles)), config, local_work)
        start = local_work.tensor_file("init").load()
        end = local_work.tensor_file("proposer").load()
        same = {name for name in start if torch.equal(start[name], end[name])}
        assert {n for n in start if n.startswith(("heads.mask_net.", "backbone."))} <= same
        assert not any(n.startswith(("rpn.head.", "heads.box_")) for n in same)
        assert local_work.table("instance_masks").num_rows > 0

    def test_all_goes_on_learning_where_some_have_masks(self, rectangles, local_work, tmp_path):
        config = _config(init=self._earlier(tmp_path), training={"steps": 2, "batch_size": 2})
        propose.run(inputs_of(propose, self._ingest(rectangles, every=2)), config, local_work)
        start = local_work.tensor_file("init").load()
        end = local_work.tensor_file("proposer").load()
        assert not any(torch.equal(start[name], end[name]) for name in start)

    def test_rectangles_if_told_so(self, rectangles, local_work):
        config = _config(box_masks="rectangle", training={"steps": 2, "batch_size": 2})
        propose.run(inputs_of(propose, self._ingest(rectangles)), config, local_work)
        made = local_work.table("instance_masks").read().to_pylist()
        truth = {r["instance_id"]: r for rows in rectangles.truth.values() for r in rows}
        assert len(made) == 36
        assert all(row["mask_rle"] == truth[row["instance_id"]]["mask_rle"] for row in made)
        losses = local_work.table("history").read().to_pylist()
        assert any(row["name"] == "roi_mask" and row["value"] > 0 for row in losses)

    def test_left_out_if_told_so(self, rectangles, local_work):
        config = _config(box_masks="leave_out", training={"steps": 2, "batch_size": 2})
        propose.run(inputs_of(propose, self._ingest(rectangles, every=2)), config, local_work)
        assert "instance_masks" not in local_work.files
        with pytest.raises(DataError, match="leaves none"):
            propose.run(inputs_of(propose, self._ingest(rectangles)), config, local_work)

    def test_masks_from_a_file_bring_no_mask_head(self, rectangles, local_work):
        config = _config(source="external", external={"results": "nowhere.json"})
        with pytest.raises(DataError, match="no mask head"):
            propose.run(inputs_of(propose, self._ingest(rectangles, every=2)), config, local_work)

    def test_objects_with_masks_are_trained_on_as_ever(self, rectangles, local_work):
        config = _config(training={"steps": 2, "batch_size": 2})
        propose.run(inputs_of(propose, {"ingest": rectangles.ingest}), config, local_work)
        assert set(local_work.files) == {"proposals", "history", "proposer", "proposer_spec"}
        assert not local_work.counts

    def test_an_init_that_cannot_be_used(self, tmp_path):
        earlier = self._earlier(tmp_path)
        propose.check(_config(init=earlier), {})
        for init, match in (
            (earlier | {"artifact": str(tmp_path)}, "no artifact of stage propose"),
            (earlier | {"sha256": "0" * 64}, earlier["sha256"]),
            (self._earlier(tmp_path / "b", spec={"source": "model"}), "does not describe"),
        ):
            with pytest.raises(ConfigError, match=match):
                propose.check(_config(init=init), {})
        wide = TINY.model_copy(update={"min_side_px": 96, "max_side_px": 96}).model_dump()
        with pytest.raises(ConfigError, match="max_side_px 64, here 96"):
            propose.check(_config(init=earlier, detector=wide), {})
        manifest = Path(earlier["artifact"]) / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"proposer"', '"other"'))
        with pytest.raises(ConfigError, match="holds no proposer"):
            propose.check(_config(init=earlier), {})

    def test_an_init_in_a_bucket(self, tmp_path, s3_endpoint):
        earlier, uri = self._earlier(tmp_path), f"s3://bucket/{tmp_path.name}/propose/key"
        here, there = LocalFolder(earlier["artifact"]), Prefix(uri, s3_endpoint)
        for name in here.names(""):
            there.write(name, here.read(name))
        init = earlier | {"artifact": uri, "endpoint": s3_endpoint}
        config = _config(init=init)
        propose.check(config, {})
        assert config.key_fields() == _config(init=earlier).key_fields()
        spec, weights = (
            next(name for name in here.names("") if part in name)
            for part in ("proposer_spec", "safetensors")
        )
        assert config.init is not None
        assert config.init.read(TINY) == here.read(weights)
        for gone, match in (
            (weights, "it is gone"),
            (spec, "it is gone"),
            ("manifest.json", "no manifest.json in it"),
        ):
            there.delete([gone])
            with pytest.raises(ConfigError, match=match) as caught:
                propose.check(config, {})
            assert caught.value.where == "stages.propose.init.artifact"

    def test_key_holds_what_the_weights_are_not_where(self, tmp_path):
        one, two = self._earlier(tmp_path / "a"), self._earlier(tmp_path / "b")
        assert _config(init=one).key_fields() == _config(init=two).key_fields()
        other = _config(init=one | {"sha256": "0" * 64})
        assert other.key_fields() != _config(init=one).key_fields() != _config().key_fields()


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
        propose.run(inputs_of(propose, {"ingest": rectangles.ingest}), config, local_work)
        assert "proposer" not in local_work.files
        assert local_work.counts["external_other_images"] == 1
        found = local_work.table("proposals").read().to_pylist()
        truth = [row["mask_rle"] for i in range(400, 406) for row in rectangles.truth[i]]
        assert [row["mask_rle"] for row in found] == truth
        assert local_work.table("history").num_rows == 0
        spec = json.loads(local_work.opener.read_bytes(local_work.files["proposer_spec"][0]))
        assert spec == {"source": "external", "detector": config.detector.model_dump(mode="json")}

    def test_too_many_unusable(self, rectangles, local_work, tmp_path):
        broken = {"image_id": 400, "segmentation": [[1, 2]], "score": 1}
        path = self._results(rectangles, tmp_path, broken)
        with pytest.raises(DataError, match="1 of 13 masks cannot be used"):
            propose.run(
                inputs_of(propose, {"ingest": rectangles.ingest}), self._config(path), local_work
            )

    def test_unusable_within_the_limit(self, rectangles, local_work, tmp_path):
        broken = {"image_id": 400, "segmentation": [[1, 2]], "score": 1}
        config = self._config(self._results(rectangles, tmp_path, broken), max_rejected=0.1)
        propose.run(inputs_of(propose, {"ingest": rectangles.ingest}), config, local_work)
        assert local_work.table("quarantine").num_rows == 1
        assert local_work.table("proposals").num_rows == 12

    def test_source_is_the_file(self, rectangles, tmp_path):
        path = self._results(rectangles, tmp_path)
        first = propose.source(self._config(path))
        path.write_text(path.read_text() + " ")
        assert propose.source(self._config(path)) != first
        assert propose.source(_config()) == ""
        with pytest.raises(DataError, match=r"missing\.json: no such file"):
            propose.source(self._config(tmp_path / "missing.json"))

    def test_source_by_size_and_time(self, rectangles, tmp_path):
        path = self._results(rectangles, tmp_path)
        config = self._config(path, fingerprint="stat")
        first = propose.source(config)
        assert propose.source(config) == first != propose.source(self._config(path))
        os.utime(path, ns=(1, 1))
        assert propose.source(config) != first
        with pytest.raises(DataError, match=r"missing\.json: no such file"):
            propose.source(self._config(tmp_path / "missing.json", fingerprint="stat"))

    def test_from_a_bucket(self, rectangles, local_work, tmp_path, s3_endpoint):
        path, uri = self._results(rectangles, tmp_path), f"s3://bucket/{tmp_path.name}"
        Prefix(uri, s3_endpoint).write("masks.json", path.read_bytes())
        there = self._config(f"{uri}/masks.json", endpoint=s3_endpoint)
        assert propose.source(there) == propose.source(self._config(path))
        propose.run(inputs_of(propose, {"ingest": rectangles.ingest}), there, local_work)
        assert local_work.table("proposals").num_rows == 12

    def test_where_the_file_is_served_is_in_no_key(self, tmp_path):
        path = tmp_path / "masks.json"
        more = self._config(path, endpoint="http://here", fingerprint="stat")
        assert more.key_fields() == self._config(path).key_fields()
        named = {"results": str(path), "max_rejected": 0.01}
        assert more.key_fields()["external"] == named
        assert _config().key_fields()["external"] is None

    def test_file_must_be_named(self):
        with pytest.raises(ConfigError, match=r"external\.results"):
            _config(source="external")


class TestImages:
    CONFIG = propose.Config.model_validate({"source": "image"})

    def test_every_image_is_an_object(self, rectangles, local_work):
        shards = [shard.to_pylist()[::2] for shard in rectangles.instances.iter_shards()]
        alone = FakeArtifact(
            {"images": rectangles.images, "instances": memory_table("instances", shards)}
        )
        propose.run(inputs_of(propose, {"ingest": alone}), self.CONFIG, local_work)
        assert set(local_work.files) == {
            "proposals", "history", "instance_masks", "proposer_spec",
        }  # fmt: skip
        found = local_work.table("proposals").read().to_pylist()
        assert [row["image_id"] for row in found] == list(range(400, 406))
        assert {tuple(row["bbox_xyxy"]) for row in found} == {(0, 0, 64, 64)}
        assert local_work.table("instance_masks").num_rows == 18

    def test_several_objects_are_refused(self, rectangles, local_work):
        with pytest.raises(DataError, match="18 labeled images have several objects"):
            propose.run(inputs_of(propose, {"ingest": rectangles.ingest}), self.CONFIG, local_work)

    def test_class_folders_teach_no_proposer(self):
        data = DataConfig.model_validate(
            {
                "root": "r",
                "labeled": {"images": "l", "format": "class_folders"},
                "unlabeled": {"images": "u"},
                "known_classes": "all",
            }
        )
        propose.check(self.CONFIG, {"instances": data})
        with pytest.raises(ConfigError, match="do not tell where objects are"):
            propose.check(_config(), {"instances": data})


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
