"""The detector on detectron2's parts: the same losses, hand-over, detections. Needs detectron2."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch
from safetensors.torch import save_file
from scene_tables import TINY

from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.instances.mask_rcnn_base import load_all_but_classifier

CONFIG = TINY.model_copy(
    update={
        "library": "detectron2",
        "backbone": "resnet18",
        "anchor_sizes_px": (8.0, 16.0, 32.0, 64.0, 128.0),
        "fpn_channels": 32,
    }
)
needs_detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed"
)


def _batch(weight=1.0, has_mask=True):
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)  # half the size the net sees
    masks[0, 4:20, 4:20] = 1
    target = {
        "boxes": torch.tensor([[8.0, 8, 40, 40]]),
        "labels": torch.tensor([2]),
        "weights": torch.tensor([weight]),
        "masks": masks,
        "has_mask": torch.tensor([has_mask]),
        "mask_scale": torch.tensor([0.5, 0.5]),
        "ignore": torch.zeros(0, 4),
    }
    empty = {name: value[:0] for name, value in target.items()} | {
        "mask_scale": target["mask_scale"]
    }
    return {"images": [image, image], "targets": [target, empty]}


def _losses(model, **options):
    torch.manual_seed(0)
    return model(_batch(**options))


def test_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "detectron2", None)
    monkeypatch.delitem(sys.modules, "gcdis_ray.instances.detectron2_adapter", raising=False)
    with pytest.raises(ConfigError, match=r"git\+https://github.com/facebookresearch/detectron2"):
        build_mask_rcnn(CONFIG, 1, seed=0)


def test_has_resnets_only():
    with pytest.raises(ConfigError, match="no backbone 'small'"):
        DetectorConfig.model_validate(TINY.model_dump() | {"library": "detectron2"})


@needs_detectron2
class TestWithDetectron2:
    def test_weights_scale_an_instances_terms(self):
        model = build_mask_rcnn(CONFIG, 3, seed=0)
        full, half, none = (_losses(model, weight=w) for w in (1.0, 0.5, 0.0))
        for name in ("roi_box", "roi_mask"):
            assert full[name] > 0
            assert half[name].item() == pytest.approx(full[name].item() / 2, rel=1e-4)
            assert none[name] == 0
        assert 0 < none["roi_class"] < half["roi_class"] < full["roi_class"]
        full["total"].backward()

    def test_object_without_mask(self):
        model = build_mask_rcnn(CONFIG, 3, seed=0)
        losses = _losses(model, has_mask=False)
        assert losses["roi_mask"] == 0
        assert losses["roi_box"] > 0
        losses["total"].backward()
        grads = [p.grad for p in model.mask_head.parameters()]
        assert all(grad is None or not grad.any() for grad in grads)

    def test_masks_of_given_boxes_are_those_of_equal_detections(self):
        model = build_mask_rcnn(CONFIG, 3, seed=0).eval()
        image = _batch()["images"][0]
        found = model.detect([image], min_score=0.0, nms_iou=0.5, max_per_image=5)[0]
        assert len(found.scores)
        masks = model.masks_in_boxes([image], [found.boxes_xyxy])[0]
        assert torch.allclose(masks, found.masks)

    def test_learns_and_detects(self):
        model = build_mask_rcnn(CONFIG, 3, 0, ClassifierConfig(kind="cosine"))
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        for _ in range(40):
            _losses(model)["total"].backward()
            optimizer.step()
            optimizer.zero_grad()
        image = _batch()["images"][0]
        found = model.eval().detect([image], min_score=0.2, nms_iou=0.5, max_per_image=5)[0]
        assert found.class_index[0] == 1
        assert (found.boxes_xyxy[0] - torch.tensor([8.0, 8, 40, 40])).abs().max() < 6
        assert found.masks.shape[1:] == (14, 14)
        assert found.masks[0].mean() > 0.8
        with pytest.raises(ConfigError, match="objectness: box"):
            model.detect([image], min_score=0, nms_iou=1, max_per_image=5, score="rpn")

    def test_hand_over_all_but_the_classifier(self):
        proposer, segmenter = (build_mask_rcnn(CONFIG, n, seed=n) for n in (1, 4))
        load_all_but_classifier(segmenter, proposer.state_dict(), "here")
        own, other = segmenter.state_dict(), proposer.state_dict()
        differ = {k for k in own if not torch.equal(own[k], other[k])}
        assert differ == {f"{segmenter.classifier_prefix}{n}" for n in ("weight", "bias")}

    def test_reads_torchvision_weights(self, tmp_path):
        import hashlib

        from torchvision.models import resnet18

        net = resnet18(weights=None).eval()
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 1.5)
        path = tmp_path / "resnet18.safetensors"
        save_file(net.state_dict(), path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        pinned = {"weights": str(path), "weights_sha256": sha256, "norm": "frozen_batch"}
        model = build_mask_rcnn(CONFIG.model_copy(update=pinned), 1, seed=0)
        image = torch.rand(1, 3, 64, 64)
        with torch.no_grad():
            found = model.backbone.bottom_up(image)["res5"]
            wanted = torch.nn.Sequential(*list(net.children())[:-2])(image)
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4)
