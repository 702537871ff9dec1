"""The segment stage on the local runtime, with and without a proposer to start from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scene_tables import (
    TINY,
    FakeArtifact,
    boxes_only,
    memory_table,
    memory_tensors,
    rectangle_scenes,
)
from stage_inputs import inputs_of

from gcdis_ray.errors import ArtifactError, ConfigError, DataError
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.inference import Detect, detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.stages import propose, segment

CLASSES = [
    {
        "class_index": i,
        "name": f"class {i}",
        "known": i < 2,
        "category_id": i + 1 if i < 2 else None,
    }
    for i in range(3)
]


@pytest.fixture(scope="module")
def rectangles():
    """Labeled images with class 2 taken out of the annotations: it is to be discovered."""
    return rectangle_scenes(["labeled", "labeled", "unlabeled", "unlabeled", "validation"])


@pytest.fixture(scope="module")
def inputs(rectangles):
    known = [[] for _ in range(5)]
    proposals, labels = [[] for _ in range(5)], [[] for _ in range(5)]
    for image_id, truth in rectangles.truth.items():
        shard = image_id // 100 - 1
        if shard < 2:
            known[shard] += [row for row in truth if row["class_index"] < 2]
        elif shard < 4:
            for row in truth:
                shared = ("image_id", "bbox_xyxy", "mask_rle", "height_px", "width_px", "area_px")
                proposals[shard].append(
                    {name: row[name] for name in shared}
                    | {"proposal_id": row["instance_id"], "objectness": 0.9, "origin": "model"}
                )
                labels[shard].append(
                    {
                        "crop_index": row["instance_id"],
                        "image_id": image_id,
                        "source_id": row["instance_id"],
                        "cluster_id": row["class_index"],
                        "probability": 0.9,
                        "stability": 1.0,
                        "reliability": 1.0,
                    }
                )
    proposer = build_mask_rcnn(TINY, 1, seed=7).state_dict()
    return {
        "ingest": FakeArtifact(
            {"images": rectangles.images, "instances": memory_table("instances", known)}
        ),
        "propose": FakeArtifact(
            {
                "proposals": memory_table("proposals", proposals),
                "proposer": memory_tensors(proposer),
                "proposer_spec": {"source": "model", **detector_spec(TINY, 1)},
            }
        ),
        "label": FakeArtifact({"pseudo_labels": memory_table("pseudo_labels", labels)}),
        "discover": FakeArtifact({"discovered_classes": CLASSES}),
    }


def _config(steps, **changes):
    training = {"steps": steps, "batch_size": 8, "optimizer": "adamw", "lr": 5e-3}
    return segment.Config.model_validate({"training": training} | changes)


def test_learns_known_and_discovered_classes(rectangles, inputs, local_work):
    segment.run(
        inputs_of(segment, inputs),
        _config(80, augment={"scale_jitter": 0, "color_jitter": 0}),
        local_work,
    )
    assert set(local_work.files) == {"segmenter", "history", "segmenter_spec", "segmenter_classes"}
    spec = detector_spec(TINY, 3, _config(1).classifier)
    detect = Detect(local_work.tensor_file("segmenter"), spec, "validation", "predictions", 0.3)
    rows = detect.open("cpu")(4, rectangles.images.shard(4))["predictions"].to_pylist()
    named = []
    for image_id in range(500, 506):
        for truth in rectangles.truth[image_id]:
            box = np.array(truth["bbox_xyxy"])
            near = [
                row["class_index"]
                for row in rows
                if row["image_id"] == image_id and np.abs(row["bbox_xyxy"] - box).max() < 6
            ]
            named.append((truth["class_index"], bool(near) and near[0] == truth["class_index"]))
    assert np.mean([right for _, right in named]) >= 0.6
    assert any(right for class_index, right in named if class_index == 2)


def _final(work):
    return work.tensor_file("segmenter").load()


def test_starts_from_the_proposer(inputs, local_work):
    frozen = _config(1, detector=TINY.model_copy(update={"frozen_stages": 1}).model_dump())
    segment.run(inputs_of(segment, inputs), frozen, local_work)
    proposer = inputs["propose"].tensor_file("proposer").load()
    name = "backbone.body.conv1.weight"
    assert torch.equal(_final(local_work)[name], proposer[name])


def test_external_masks_start_from_scratch(inputs, local_work):
    members = inputs["propose"].members
    spec = {"source": "external", "detector": TINY.model_dump(mode="json")}
    external = FakeArtifact({"proposals": members["proposals"], "proposer_spec": spec})
    segment.run(inputs_of(segment, {**inputs, "propose": external}), _config(1), local_work)
    made = json.loads(local_work.opener.read_bytes(local_work.files["segmenter_spec"][0]))
    assert made["detector"] == spec["detector"]


def test_the_detector_of_external_masks_is_looked_at_before_anything_starts():
    detector = TINY.model_dump() | {"backbone": "resnet10t", "weights": "nowhere.safetensors"}
    anchors = {"anchor_sizes_px": (16.0, 32.0, 64.0, 128.0)}
    told = {"external": {"results": "masks.json"}, "detector": detector | anchors}
    made = propose.Config.model_validate({"source": "external", **told})
    with pytest.raises(ConfigError, match=r"stages\.propose\.detector.*nowhere"):
        segment.check(_config(1), {"proposals": made})
    segment.check(_config(1, detector=TINY.model_dump()), {"proposals": made})


class TestBoxesOnly:
    @pytest.fixture
    def bare(self, inputs):
        """No labeled object has a mask, no image a pseudo-label; rectangles were made for them."""
        instances = inputs["ingest"].table("instances")
        keep = ("instance_id", "image_id", "mask_rle", "area_px")
        made = [
            [{name: row[name] for name in keep} | {"origin": "model"} for row in shard.to_pylist()]
            for shard in instances.iter_shards()
        ]
        ingest = inputs["ingest"].members | {"instances": boxes_only(instances)}
        propose = inputs["propose"].members | {
            "instance_masks": memory_table("instance_masks", made)
        }
        nothing = FakeArtifact({"pseudo_labels": memory_table("pseudo_labels", [[]] * 5)})
        return {
            **inputs,
            "ingest": FakeArtifact(ingest),
            "propose": FakeArtifact(propose),
            "label": nothing,
        }

    def _mask_losses(self, work):
        rows = work.table("history").read().to_pylist()
        return [row["value"] for row in rows if row["name"] == "roi_mask"]

    @pytest.mark.parametrize("model_masks", ["ignore", "use"])
    def test_made_masks_teach_only_if_told_so(self, bare, local_work, model_masks):
        segment.run(inputs_of(segment, bare), _config(2, model_masks=model_masks), local_work)
        losses = self._mask_losses(local_work)
        assert losses
        assert all((loss > 0) == (model_masks == "use") for loss in losses)
        start = bare["propose"].tensor_file("proposer").load()
        moved = [
            name
            for name, value in _final(local_work).items()
            if "classifier" not in name and not torch.equal(value, start[name])
        ]
        assert any(name.startswith("heads.box_") for name in moved)

    def test_a_mask_head_that_can_learn_from_nothing(self, bare, local_work):
        config = _config(2, init_from_proposer=False)
        with pytest.raises(DataError, match="mask head can learn from nothing"):
            segment.run(inputs_of(segment, bare), config, local_work)
        segment.run(
            inputs_of(segment, bare),
            _config(2, init_from_proposer=False, model_masks="use"),
            local_work,
        )


def test_another_architecture_than_the_proposers(inputs, local_work):
    wide = DetectorConfig.model_validate(TINY.model_dump() | {"width": 24})
    config = _config(1, detector=wide.model_dump())
    with pytest.raises(ArtifactError, match="init_from_proposer"):
        segment.run(inputs_of(segment, inputs), config, local_work)


def test_memory_is_not_in_the_key():
    assert _config(5, image_cache_mb=5).key_fields() == _config(5).key_fields()
    assert _config(5).key_fields() != _config(6).key_fields()
