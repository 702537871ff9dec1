"""Mask R-CNN with class-agnostic box and mask heads: the proposer and the segmenter.

The segmenter differs from the proposer in its classifier alone, so all else can be handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from gcdis_ray.backbones.imagenet import IMAGENET_MEAN_255, IMAGENET_STD_255
from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.detector_backbone import build_pyramid
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.instance_heads import (
    BoxDetections,
    BoxHead,
    BoxPredictor,
    CosineBoxClassifier,
    InstanceHeads,
    ProposalNetwork,
    Target,
)
from gcdis_ray.instances.mask_rcnn_base import MaskRCNN

_PADDED_TO = 32  # px; the largest stride of a backbone stage


class TorchvisionMaskRCNN(MaskRCNN):
    """Mask R-CNN over ``num_classes`` classes (1 for class-agnostic proposals)."""

    classifier_prefix = "heads.box_predictor.classifier."

    def __init__(
        self, config: DetectorConfig, num_classes: int, classifier: ClassifierConfig | None
    ) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN_255, IMAGENET_STD_255))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.backbone = build_pyramid(config, mean, std)
        channels = config.fpn_channels
        self.rpn = ProposalNetwork(
            AnchorGenerator(
                tuple((size,) for size in config.anchor_sizes_px),
                (config.anchor_ratios,) * config.num_levels,
            ),
            RPNHead(channels, len(config.anchor_ratios)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=config.rpn_batch,
            positive_fraction=0.5,
            pre_nms_top_n=dict.fromkeys(("training", "testing"), config.rpn_pre_nms),
            post_nms_top_n=dict.fromkeys(("training", "testing"), config.rpn_post_nms),
            nms_thresh=config.rpn_nms_iou,
        )
        names = [str(i) for i in range(min(config.num_levels, 4))]  # not the pooled level
        pool = partial(
            MultiScaleRoIAlign,
            names,
            sampling_ratio=config.roi_samples,
            canonical_scale=config.roi_canonical_px,
        )
        width, outputs = config.box_channels, num_classes + 1
        classes: nn.Module = nn.Linear(width, outputs)
        if classifier is not None and classifier.kind == "cosine":
            classes = CosineBoxClassifier(width, outputs, classifier.cosine_scale)
        self.heads = InstanceHeads(
            box_roi_pool=pool(7),
            box_head=BoxHead(channels, width),
            box_predictor=BoxPredictor(width, classes),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=config.roi_batch,
            positive_fraction=config.roi_positive,
            bbox_reg_weights=None,
            mask_pool=pool(config.mask_roi),
            mask_net=nn.Sequential(
                MaskRCNNHeads(channels, [config.mask_channels] * config.mask_convs, 1),
                _mask_predictor(config.mask_channels),
            ),
        )

    @property
    def mask_head(self) -> nn.Module:
        return self.heads.mask_net

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        images = self._images(batch["images"])
        targets: list[Target] = batch["targets"]
        features = self._features(images)
        proposals, _, losses = self.rpn(images, features, targets)
        losses |= self.heads(features, proposals, _padded_shapes(images), targets)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    @torch.inference_mode()
    def detect(self, images: Sequence[Tensor], **options: Any) -> list[BoxDetections]:
        """Objects in uint8 (3, H, W) images; options are those of ``InstanceHeads.detect``."""
        batch = self._images(images)
        features = self._features(batch)
        proposals, objectness, _ = self.rpn(batch, features)
        return self.heads.detect(
            features, proposals, objectness, _padded_shapes(batch), batch.image_sizes, **options
        )

    @torch.inference_mode()
    def masks_in_boxes(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        batch = self._images(images)
        return self.heads.masks_in_boxes(
            self._features(batch), [b.to(self.mean) for b in boxes], _padded_shapes(batch)
        )

    def _features(self, images: ImageList) -> dict[str, Tensor]:
        # region pooling wants the precision of its boxes, so float32 whatever the backbone ran in
        return {name: value.float() for name, value in self.backbone(images.tensors).items()}

    def _images(self, images: Sequence[Tensor]) -> ImageList:
        sizes = [(int(i.shape[1]), int(i.shape[2])) for i in images]
        height, width = (
            -(-max(size[axis] for size in sizes) // _PADDED_TO) * _PADDED_TO for axis in (0, 1)
        )
        padded = torch.stack(
            [
                F.pad(
                    (i.to(self.mean.device, torch.float32) - self.mean) / self.std,
                    (0, width - i.shape[2], 0, height - i.shape[1]),
                )
                for i in images
            ]
        )
        return ImageList(padded.contiguous(memory_format=self.layout), sizes)


def _mask_predictor(channels: int) -> MaskRCNNPredictor:
    """The last layers of the mask head, for masks of any class. They start undecided, with logits
    near zero (as in Detectron): torchvision's own start divides by the number of classes, and one
    class alone has logits so large that on photographs the head dies in its first steps."""
    predictor = MaskRCNNPredictor(channels, channels, 1)
    logits = cast("nn.Conv2d", predictor.mask_fcn_logits)
    nn.init.normal_(logits.weight, std=0.001)
    nn.init.zeros_(cast("Tensor", logits.bias))
    return predictor


def _padded_shapes(images: ImageList) -> list[tuple[int, int]]:
    height, width = images.tensors.shape[-2:]
    return [(int(height), int(width))] * len(images.image_sizes)


def build_mask_rcnn(
    config: DetectorConfig,
    num_classes: int,
    seed: int,
    classifier: ClassifierConfig | None = None,
) -> MaskRCNN:
    """A detector of the configured library, whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if config.library == "detectron2":
            return _import_detectron2()(config, num_classes, classifier)
        return TorchvisionMaskRCNN(config, num_classes, classifier)


def _import_detectron2() -> Callable[..., MaskRCNN]:
    try:
        from gcdis_ray.instances.detectron2_adapter import Detectron2MaskRCNN
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"detectron2 is not installed ({error})",
            where="detector.library",
            fix="pip install 'gcdis-ray[detectron2]', then pip install --no-build-isolation "
            "git+https://github.com/facebookresearch/detectron2; or use library: torchvision",
        ) from error
    return Detectron2MaskRCNN
