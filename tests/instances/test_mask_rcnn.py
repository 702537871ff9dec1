"""The detector's own parts: weighted losses, ignored areas, suppression, hand-over of weights."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import save_file
from scene_tables import TINY
from torchvision.ops import box_iou

from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.instances import instance_heads
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.instance_heads import (
    covered_share,
    instance_losses,
    mask_loss,
    project_masks,
    select,
)
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.instances.mask_rcnn_base import load_all_but_classifier

FOUR_LEVELS = {"anchor_sizes_px": (8.0, 16.0, 32.0, 64.0)}


def _target(boxes, labels, weights=None, ignore=(), side=64):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(boxes), side, side, dtype=torch.uint8)
    for mask, box in zip(masks, boxes.int().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    count = len(boxes)
    return {
        "boxes": boxes,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "weights": torch.ones(count) if weights is None else torch.tensor(weights),
        "masks": masks,
        "has_mask": torch.ones(count, dtype=torch.bool),
        "mask_scale": torch.ones(2),
        "ignore": torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4),
    }


def _image(seed=0, side=64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=generator)


def _losses(model, *targets, seed=0):
    torch.manual_seed(seed)
    return model({"images": [_image(i) for i in range(len(targets))], "targets": list(targets)})


class TestLosses:
    def test_equal_a_loop_over_regions(self):
        generator = torch.Generator().manual_seed(1)
        logits = torch.randn(7, 4, generator=generator)
        deltas, wanted = torch.randn(2, 7, 4, generator=generator)
        labels = torch.tensor([0, 3, 1, 0, 2, 2, 0])
        weights = torch.tensor([1.0, 0.25, 1.0, 1.0, 0.0, 0.7, 1.0])
        classes = boxes = 0.0
        for i in range(7):
            classes -= float(weights[i] * logits[i].log_softmax(0)[labels[i]])
            if labels[i]:
                for d in (deltas[i] - wanted[i]).abs().tolist():
                    loss = 0.5 * d * d * 9 if d < 1 / 9 else d - 0.5 / 9
                    boxes += float(weights[i]) * loss
        found = instance_losses(logits, deltas, labels, wanted, weights)
        assert float(found["roi_class"]) == pytest.approx(classes / 7, rel=1e-5)
        assert float(found["roi_box"]) == pytest.approx(boxes / 7, rel=1e-5)

    def test_unit_weights_are_the_usual_losses(self):
        generator = torch.Generator().manual_seed(2)
        logits = torch.randn(5, 3, generator=generator)
        labels = torch.tensor([0, 1, 2, 0, 1])
        found = instance_losses(logits, torch.zeros(5, 4), labels, torch.zeros(5, 4), torch.ones(5))
        assert torch.allclose(found["roi_class"], F.cross_entropy(logits, labels))
        masks = torch.randn(4, 6, 6, generator=generator)
        wanted = (torch.rand(4, 6, 6, generator=generator) > 0.5).float()
        usual = F.binary_cross_entropy_with_logits(masks, wanted)
        assert torch.allclose(mask_loss(masks, wanted, torch.ones(4), 4), usual)

    def test_halved_weights_halve_the_loss(self):
        masks, wanted = torch.zeros(3, 4, 4), torch.ones(3, 4, 4)
        full = mask_loss(masks, wanted, torch.ones(3), 3)
        assert mask_loss(masks, wanted, torch.full((3,), 0.5), 3) == pytest.approx(full / 2)

    def test_no_regions_give_zero(self):
        none = torch.zeros(0, 4)
        found = instance_losses(
            torch.zeros(0, 3), none, torch.zeros(0, dtype=torch.int64), none, torch.zeros(0)
        )
        assert found["roi_class"] == 0
        assert mask_loss(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4), torch.zeros(0), 0) == 0


class TestTraining:
    def test_an_instance_without_weight_teaches_the_heads_nothing(self):
        model = build_mask_rcnn(TINY, 2, seed=0)
        box = [[8, 8, 40, 40]]
        full = _losses(model, _target(box, [1]))
        assert full["roi_box"] > 0
        assert full["roi_mask"] > 0
        none = _losses(model, _target(box, [1], [0.0]))
        assert none["roi_box"] == 0
        assert none["roi_mask"] == 0
        assert 0 < none["roi_class"] < full["roi_class"]
        assert none["rpn_objectness"] == full["rpn_objectness"]

    def test_masks_start_undecided(self):
        """Large logits at the start kill the head on photographs."""
        loss = _losses(build_mask_rcnn(TINY, 2, seed=0), _target([[8, 8, 40, 40]], [1]))
        assert float(loss["roi_mask"]) == pytest.approx(math.log(2), abs=0.02)

    def test_image_without_objects(self):
        model = build_mask_rcnn(TINY, 2, seed=0)
        losses = _losses(model, _target([], []), _target([[8, 8, 40, 40]], [2]))
        losses["total"].backward()
        assert all(torch.isfinite(v) for v in losses.values())
        values = {name: float(v.detach()) for name, v in losses.items()}
        assert values.pop("total") == pytest.approx(sum(values.values()))

    def test_object_without_mask_trains_boxes_only(self):
        target = _target([[8, 8, 40, 40]], [1])
        target["has_mask"][:] = False
        losses = _losses(build_mask_rcnn(TINY, 2, seed=0), target)
        assert losses["roi_mask"] == 0
        assert losses["roi_box"] > 0

    def test_boxes_alone_move_no_mask_head(self):
        model = build_mask_rcnn(TINY, 2, seed=0)
        targets = [_target([[8, 8, 40, 40]], [1]), _target([[8, 8, 40, 40]], [2])]
        for target in targets:
            target["has_mask"][:] = False
        losses = _losses(model, *targets)
        losses["total"].backward()
        assert torch.isfinite(losses["total"])
        grads = [p.grad for p in model.mask_head.parameters()]
        assert all(grad is None or not grad.any() for grad in grads)
        assert model.backbone.body["conv1"].weight.grad.any()

    def test_mask_loss_is_the_mean_over_objects_with_a_mask(self):
        model = build_mask_rcnn(TINY, 2, seed=0)
        with_mask, box = _target([[8, 8, 40, 40]], [1]), _target([[8, 8, 40, 40]], [2])
        alone = _losses(model, with_mask, _target([], []))["roi_mask"]
        both = _losses(model, with_mask, box)
        box["has_mask"][:] = False
        mixed = _losses(model, with_mask, box)
        assert torch.allclose(mixed["roi_mask"], alone)
        assert not torch.allclose(mixed["roi_mask"], both["roi_mask"])
        for name in ("rpn_objectness", "rpn_box", "roi_class", "roi_box"):
            assert torch.equal(mixed[name], both[name])

    def test_crowd_area_is_no_background(self):
        model = build_mask_rcnn(TINY, 1, seed=0)
        everywhere = [[0, 0, 64, 64]]
        losses = _losses(model, _target([[8, 8, 40, 40]], [1], ignore=everywhere))
        without = _losses(model, _target([[8, 8, 40, 40]], [1]))
        assert losses["roi_box"] > without["roi_box"]  # no background to share the count with
        anchors = [torch.tensor([[0.0, 0.0, 16.0, 16.0], [44.0, 44.0, 60.0, 60.0]])]
        target = _target([[0, 0, 16, 16]], [1], ignore=[[40, 40, 64, 64]])
        labels, _ = model.rpn.assign_targets_to_anchors(anchors, [target])
        assert labels[0].tolist() == [1.0, -1.0]

    def test_repeats_for_equal_seeds(self):
        target = _target([[8, 8, 40, 40], [30, 20, 60, 50]], [1, 2])
        first = _losses(build_mask_rcnn(TINY, 2, seed=3), target)
        again = _losses(build_mask_rcnn(TINY, 2, seed=3), target)
        other = _losses(build_mask_rcnn(TINY, 2, seed=4), target)
        assert torch.equal(first["total"], again["total"])
        assert not torch.equal(first["total"], other["total"])

    @pytest.mark.parametrize("kind", ["softmax", "cosine"])
    def test_boxes_keep_their_precision_in_bfloat16(self, kind: str):
        model = build_mask_rcnn(TINY, 2, 0, ClassifierConfig.model_validate({"kind": kind}))
        target = _target([[8, 8, 40, 40]], [1])
        with torch.autocast("cpu", torch.bfloat16):
            losses = _losses(model, target)
            images = model._images([_image()])
            boxes, _, _ = model.rpn(images, model._features(images))
        losses["total"].backward()
        assert boxes[0].dtype == torch.float32
        assert losses["total"].dtype == torch.float32
        assert torch.isfinite(losses["total"])

    def test_cosine_logits_are_not_rounded_to_16_bits(self):
        """0.125 apart they would be, near 20."""
        torch.manual_seed(0)
        head, features = instance_heads.CosineBoxClassifier(8, 5, 20.0), torch.randn(6, 8)
        with torch.autocast("cpu", torch.bfloat16):
            found = head(features.bfloat16())
        assert found.dtype == torch.float32
        assert torch.equal(found, head(features.bfloat16().float()))
        found.sum().backward()
        assert head.weight.grad is not None

    def test_channels_last_is_the_layout_of_weights_and_images(self):
        """Images keep it with weights as ZeRO leaves them; one of both is enough for cuDNN."""
        model, images = build_mask_rcnn(TINY, 5, 0), [torch.zeros(3, 40, 50, dtype=torch.uint8)]
        assert model._images(images).tensors.is_contiguous()
        before = model.state_dict()
        model.to_channels_last()
        assert model._images(images).tensors.stride()[1] == 1
        assert model.backbone.body.conv1.weight.stride()[1] == 1
        assert list(model.state_dict()) == list(before)
        for parameter in model.parameters():
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        assert model._images(images).tensors.stride()[1] == 1

    def test_cosine_logits_are_bounded(self):
        model = build_mask_rcnn(TINY, 5, 0, ClassifierConfig(kind="cosine", cosine_scale=7.0))
        logits, _ = model.heads.box_predictor(torch.randn(20, TINY.box_channels) * 100)
        assert logits.shape == (20, 6)
        assert float(logits.detach().abs().max()) <= 7.0 + 1e-4


def test_covered_share():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [20, 20, 30, 30]])
    areas = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 10]])
    assert covered_share(boxes, areas).tolist() == pytest.approx([1.0, 0.25, 0.0])
    assert covered_share(boxes, areas[:0]).tolist() == [0, 0, 0]


def test_project_masks_reads_the_box():
    mask = torch.zeros(2, 20, 20, dtype=torch.uint8)
    mask[1, 4:8, 6:10] = torch.eye(4, dtype=torch.uint8)
    found = project_masks(mask, torch.tensor([[6.0, 4.0, 10.0, 8.0]]), torch.tensor([1]), 4)
    assert torch.allclose(found[0], torch.eye(4))


@examples(40)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 5), limit=st.integers(1, 12))
def test_select_is_greedy_suppression_by_class(seed, classes, limit):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 60, (25, 2))
    boxes = torch.tensor(np.concatenate([corner, corner + rng.uniform(4, 40, (25, 2))], 1)).float()
    scores = torch.tensor(rng.random((25, classes))).float()
    pairs = sorted(
        ((float(scores[r, c]), r, c) for r in range(25) for c in range(classes)),
        key=lambda pair: -pair[0],
    )
    iou = box_iou(boxes, boxes)
    kept = []
    for score, region, c in pairs:
        if score >= 0.2 and all(c != k or iou[region, r] <= 0.5 for _, r, k in kept):
            kept.append((score, region, c))
    kept = kept[:limit]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(instance_heads, "_CANDIDATES", 3)  # so that the search must widen
        found_boxes, found_classes, found_scores = select(boxes, scores, 0.2, 0.5, limit)
    assert found_scores.tolist() == [score for score, _, _ in kept]
    assert found_classes.tolist() == [c for _, _, c in kept]
    assert torch.equal(found_boxes, boxes[[region for _, region, _ in kept]])


class TestDetect:
    def test_best_first_and_within_the_image(self):
        model = build_mask_rcnn(TINY, 3, seed=0).eval()
        found = model.detect([_image()], min_score=0.0, nms_iou=0.5, max_per_image=20)[0]
        assert 0 < len(found.scores) <= 20
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert found.boxes_xyxy.min() >= 0
        assert found.boxes_xyxy.max() <= 64
        assert found.masks.shape == (len(found.scores), 14, 14)
        assert set(found.class_index.tolist()) <= {0, 1, 2}

    def test_nothing_passes_an_impossible_score(self):
        model = build_mask_rcnn(TINY, 3, seed=0).eval()
        found = model.detect([_image()], min_score=1.0, nms_iou=0.5, max_per_image=20)[0]
        assert len(found.scores) == 0
        assert found.masks.shape == (0, 14, 14)

    def test_masks_of_given_boxes_are_those_of_equal_detections(self):
        model = build_mask_rcnn(TINY, 3, seed=0).eval()
        images = [_image(0), _image(1)]
        found = model.detect(images, min_score=0.0, nms_iou=0.5, max_per_image=5)
        masks = model.masks_in_boxes(images, [f.boxes_xyxy for f in found])
        for mask, one in zip(masks, found, strict=True):
            assert torch.allclose(mask, one.masks)
        assert not torch.allclose(masks[0], masks[1])

    @pytest.mark.parametrize("score", ["rpn", "mean"])
    def test_other_scores(self, score):
        model = build_mask_rcnn(TINY, 1, seed=0).eval()
        options = {"min_score": 0.0, "nms_iou": 1.0, "max_per_image": 5}
        box = model.detect([_image()], **options, score="box")[0].scores
        other = model.detect([_image()], **options, score=score)[0].scores
        assert not torch.equal(box, other)
        assert 0 <= float(other.min()) <= float(other.max()) <= 1


class TestWeights:
    def test_hand_over_all_but_the_classifier(self):
        proposer = build_mask_rcnn(TINY, 1, seed=0)
        segmenter = build_mask_rcnn(TINY, 4, seed=1)
        fresh = segmenter.heads.box_predictor.classifier.weight.clone()
        load_all_but_classifier(segmenter, proposer.state_dict(), "here")
        assert torch.equal(segmenter.heads.box_predictor.classifier.weight, fresh)
        own, other = segmenter.state_dict(), proposer.state_dict()
        same = [k for k in own if "classifier" not in k]
        assert len(same) > 30
        assert all(torch.equal(own[k], other[k]) for k in same)

    def test_another_architecture_is_refused(self):
        wide = build_mask_rcnn(TINY.model_copy(update={"width": 24}), 1, seed=0)
        with pytest.raises(ArtifactError, match="architecture"):
            load_all_but_classifier(build_mask_rcnn(TINY, 2, seed=0), wide.state_dict(), "here")

    def test_pinned_backbone_file(self, tmp_path):
        body = build_mask_rcnn(TINY, 1, seed=9).backbone.body.state_dict()
        path = tmp_path / "body.safetensors"
        save_file({**body, "fc.weight": torch.zeros(2, 2)}, path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        pinned = {"weights": str(path), "weights_sha256": sha256, "frozen_stages": 1}
        model = build_mask_rcnn(TINY.model_copy(update=pinned), 1, seed=0)
        loaded = model.backbone.body.state_dict()
        assert all(torch.equal(loaded[k], body[k]) for k in body)
        assert not model.backbone.body["conv1"].weight.requires_grad
        assert not model.backbone.body["layer1"][0].conv1.weight.requires_grad
        assert model.backbone.body["layer2"][0].conv1.weight.requires_grad

        other = {"weights": str(path), "weights_sha256": "0" * 64}
        with pytest.raises(ConfigError, match=sha256):
            build_mask_rcnn(TINY.model_copy(update=other), 1, seed=0)
        with pytest.raises(ConfigError, match="No such file"):
            build_mask_rcnn(TINY.model_copy(update={**other, "weights": "nowhere"}), 1, seed=0)
        with pytest.raises(ConfigError, match="does not fit"):
            build_mask_rcnn(TINY.model_copy(update={**pinned, "width": 24}), 1, seed=0)


class TestConfig:
    @pytest.mark.parametrize(
        ("change", "key"),
        [
            ({"anchor_sizes_px": (16.0,)}, "anchor_sizes_px"),
            ({"max_side_px": 32}, "max_side_px"),
            ({"norm": "frozen_batch"}, "norm"),
            ({"weights": "hub"}, "weights"),
            ({"weights_sha256": "0" * 64}, "weights"),
            ({"backbone": "test_resnet", "anchor_sizes_px": (8.0,) * 3}, "anchor_sizes_px"),
        ],
    )
    def test_contradictions(self, change, key):
        with pytest.raises(ConfigError, match=key):
            DetectorConfig.model_validate(TINY.model_dump() | change)

    def test_bounds(self):
        with pytest.raises(ValidationError):
            DetectorConfig.model_validate({"roi_batch": 0})

    def test_standard_backbone_has_five_levels(self):
        config = TINY.model_copy(
            update={"backbone": "resnet18", "anchor_sizes_px": (8.0, 16.0, 32.0, 64.0, 128.0)}
        )
        model = build_mask_rcnn(config, 1, seed=0)
        levels = model.backbone(torch.zeros(1, 3, 64, 64))
        assert [v.shape[-1] for v in levels.values()] == [16, 8, 4, 2, 1]
        losses = _losses(model, _target([[8, 8, 40, 40]], [1]))
        assert torch.isfinite(losses["total"])
