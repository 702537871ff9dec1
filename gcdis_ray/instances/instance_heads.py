"""Region proposals and per-region heads of Mask R-CNN, with a weight on every training instance.

Both build on torchvision's detection package. What differs from it: regions that mostly lie in
an ignored area (a crowd) are no background; each matched region's terms carry its instance's
weight and are divided by counts, not by the sum of weights, so that doubtful instances count for
less; box and mask heads are class-agnostic; candidates are cut down before suppression.

Shape letters: R regions, P positive regions, K classes, C = K + 1 with background first, M mask
side, N instances of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import boxes as box_ops
from torchvision.ops import roi_align

from gcdis_ray.models.heads import at_least_fp32

Target = dict[str, Tensor]
"""One training image: ``boxes`` (N, 4) float32 px, ``labels`` (N,) int64 in 1..K, ``weights`` (N,)
float32, ``masks`` (N, h, w) uint8, ``has_mask`` (N,) bool, ``mask_scale`` (2,) mask px per image px
in x and y, ``ignore`` (n, 4) boxes of crowds."""

_CANDIDATES = 2000  # best-scored boxes that enter suppression first


@dataclass(frozen=True)
class BoxDetections:
    """Objects found in one image, best first.

    ``boxes_xyxy`` (n, 4) float32 px, ``class_index`` (n,) int64 in 0..K-1, ``scores`` (n,) float32
    in [0, 1], ``masks`` (n, M, M) float32 probabilities inside each box.
    """

    boxes_xyxy: Tensor
    class_index: Tensor
    scores: Tensor
    masks: Tensor


def covered_share(boxes: Tensor, areas: Tensor) -> Tensor:
    """Largest share of each box that one of the areas covers: (R, 4), (n, 4) -> (R,) in [0, 1]."""
    if areas.shape[0] == 0:
        return boxes.new_zeros(boxes.shape[0])
    low = torch.maximum(boxes[:, None, :2], areas[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], areas[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(dim=2)
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-6).prod(dim=1)
    return (inside / size[:, None]).amax(dim=1)


class ProposalNetwork(RegionProposalNetwork):
    """Torchvision's RPN, which also returns the objectness of what it proposes."""

    def assign_targets_to_anchors(self, anchors, targets):
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            label[(label == 0) & (covered_share(anchor, target["ignore"]) > 0.5)] = -1.0
        return labels, boxes

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: ImageList,
        features: dict[str, Tensor],
        targets: list[Target] | None = None,
    ) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """Boxes (R, 4) and objectness (R,) in [0, 1] per image; losses when training."""
        levels = list(features.values())
        objectness, deltas = self.head(levels)
        anchors = self.anchor_generator(images, levels)
        per_level = [o.shape[1] * o.shape[2] * o.shape[3] for o in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        objectness, deltas = objectness.float(), deltas.float()  # boxes need the precision
        proposals = self.box_coder.decode(deltas.detach(), anchors)
        proposals = proposals.view(len(anchors), -1, 4)
        boxes, scores = self.filter_proposals(proposals, objectness, images.image_sizes, per_level)
        losses = {}
        if targets is not None:
            labels, matched = self.assign_targets_to_anchors(anchors, targets)
            wanted = self.box_coder.encode(matched, anchors)
            objectness_loss, box_loss = self.compute_loss(objectness, deltas, labels, wanted)
            losses = {"rpn_objectness": objectness_loss, "rpn_box": box_loss}
        return boxes, scores, losses


class BoxHead(nn.Module):
    """(R, channels, 7, 7) -> (R, width): two hidden layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(channels * 7 * 7, width)
        self.hidden2 = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.relu(self.hidden1(features.flatten(1)))
        return F.relu(self.hidden2(hidden))


class CosineBoxClassifier(nn.Module):
    """Logits are ``scale`` times the cosine between a feature and each class's weight."""

    def __init__(self, width: int, num_outputs: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, width))
        nn.init.normal_(self.weight, std=0.01)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        # near 20, the next number of 16 bits is 0.125 away
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(at_least_fp32(features))
            return self.scale * F.linear(unit, F.normalize(self.weight))


class BoxPredictor(nn.Module):
    """(R, width) -> class logits (R, C) and one class-agnostic box correction (R, 4)."""

    def __init__(self, width: int, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        self.box = nn.Linear(width, 4)
        nn.init.normal_(self.box.weight, std=0.001)
        nn.init.zeros_(self.box.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(features), self.box(features)


def instance_losses(
    logits_RC: Tensor,
    deltas_R4: Tensor,
    labels_R: Tensor,
    wanted_R4: Tensor,
    weights_R: Tensor,
) -> dict[str, Tensor]:
    """Classification and box terms of the sampled regions, each times its region's weight.

    Args:
        logits_RC: class logits, background first.
        labels_R: 0 for background, class + 1 otherwise.
        weights_R: 1 for background and ground truth, the reliability weight of a pseudo-label.

    Returns:
        ``roi_class`` and ``roi_box``: weighted sums over R.
    """
    count = max(labels_R.shape[0], 1)
    entropy_R = F.cross_entropy(logits_RC.float(), labels_R, reduction="none")
    positive = labels_R > 0
    distance_P4 = F.smooth_l1_loss(
        deltas_R4[positive].float(), wanted_R4[positive], beta=1 / 9, reduction="none"
    )
    return {
        "roi_class": (entropy_R * weights_R).sum() / count,
        "roi_box": (distance_P4.sum(dim=1) * weights_R[positive]).sum() / count,
    }


def mask_loss(logits_PMM: Tensor, wanted_PMM: Tensor, weights_P: Tensor, count: int) -> Tensor:
    """Pixel-wise cross entropy per region, weighted, over ``count`` regions that have a mask."""
    pixels = F.binary_cross_entropy_with_logits(logits_PMM.float(), wanted_PMM, reduction="none")
    return (pixels.mean(dim=(1, 2)) * weights_P).sum() / max(count, 1)


class InstanceHeads(RoIHeads):
    """Box, class and mask heads. ``forward`` trains, :meth:`detect` infers.

    Args:
        mask_pool: pools features for :attr:`mask_net`, which gives logits (P, 1, M, M).
        others: of torchvision's RoIHeads.
    """

    def __init__(self, *, mask_pool: nn.Module, mask_net: nn.Module, **others: Any) -> None:
        # thresholds of inference are arguments of detect
        super().__init__(**others, score_thresh=0.0, nms_thresh=0.5, detections_per_img=1)
        self.mask_pool, self.mask_net = mask_pool, mask_net

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Target],
    ) -> dict[str, Tensor]:
        """Losses ``roi_class``, ``roi_box`` and ``roi_mask`` of one batch of images."""
        boxes = self.add_gt_proposals(proposals, [t["boxes"] for t in targets])
        matched, labels = self.assign_targets_to_proposals(
            boxes, [t["boxes"] for t in targets], [t["labels"] for t in targets]
        )
        for label, box, target in zip(labels, boxes, targets, strict=True):
            label[(label == 0) & (covered_share(box, target["ignore"]) > 0.5)] = -1  # unsampled
        for i, sampled in enumerate(self.subsample(labels)):
            boxes[i], matched[i], labels[i] = (
                boxes[i][sampled],
                matched[i][sampled],
                labels[i][sampled],
            )
        weights = [
            _gather(t["weights"], m).where(label > 0, 1.0)
            for t, m, label in zip(targets, matched, labels, strict=True)
        ]
        wanted = self.box_coder.encode(
            [_gather(t["boxes"], m) for t, m in zip(targets, matched, strict=True)], boxes
        )
        hidden = self.box_head(self.box_roi_pool(features, boxes, image_shapes))
        logits_RC, deltas_R4 = self.box_predictor(hidden)
        losses = instance_losses(
            logits_RC, deltas_R4, torch.cat(labels), torch.cat(list(wanted)), torch.cat(weights)
        )
        losses["roi_mask"] = self._mask_loss(
            features, boxes, matched, labels, weights, image_shapes, targets
        )
        return losses

    def _mask_loss(
        self, features, boxes, matched, labels, weights, image_shapes, targets
    ) -> Tensor:
        chosen = [
            (label > 0) & _gather(t["has_mask"], m)
            for label, m, t in zip(labels, matched, targets, strict=True)
        ]
        boxes = [b[c] for b, c in zip(boxes, chosen, strict=True)]
        matched = [m[c] for m, c in zip(matched, chosen, strict=True)]
        logits_PMM = self._mask_logits(features, boxes, image_shapes)
        side = logits_PMM.shape[-1]
        wanted_PMM = torch.cat(
            [
                project_masks(t["masks"], b * t["mask_scale"].repeat(2), m, side)
                for t, b, m in zip(targets, boxes, matched, strict=True)
            ]
        )
        weights_P = torch.cat([w[c] for w, c in zip(weights, chosen, strict=True)])
        return mask_loss(logits_PMM, wanted_PMM, weights_P, weights_P.shape[0])

    def _mask_logits(self, features, boxes, image_shapes) -> Tensor:
        pooled = self.mask_pool(features, boxes, image_shapes)
        return self.mask_net(pooled)[:, 0]

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        objectness: list[Tensor],
        image_shapes: list[tuple[int, int]],
        image_sizes: list[tuple[int, int]],
        *,
        min_score: float,
        nms_iou: float,
        max_per_image: int,
        score: str = "box",
    ) -> list[BoxDetections]:
        """Objects per image, best first.

        Args:
            image_shapes: padded size the features were computed on; image_sizes: without padding.
            score: ``box`` = class probability of the box head, ``rpn`` = objectness of the
                region proposal, ``mean`` = their geometric mean.
        """
        hidden = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits_RC, deltas_R4 = self.box_predictor(hidden)
        decoded_R4 = self.box_coder.decode(deltas_R4.float(), proposals)[:, 0]
        probability_RK = logits_RC.float().softmax(dim=1)[:, 1:]
        counts = [len(p) for p in proposals]
        found = []
        for boxes, scores_RK, rpn_R, size in zip(
            decoded_R4.split(counts),
            probability_RK.split(counts),
            objectness,
            image_sizes,
            strict=True,
        ):
            if score == "rpn":
                scores_RK = rpn_R[:, None].expand_as(scores_RK)
            elif score == "mean":
                scores_RK = (scores_RK * rpn_R[:, None]).sqrt()
            boxes = box_ops.clip_boxes_to_image(boxes, size)
            found.append(select(boxes, scores_RK, min_score, nms_iou, max_per_image))
        per_image = self.masks_in_boxes(features, [f[0] for f in found], image_shapes)
        return [
            BoxDetections(boxes, class_index, scores, mask)
            for (boxes, class_index, scores), mask in zip(found, per_image, strict=True)
        ]

    def masks_in_boxes(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[Tensor]:
        """Probabilities (n, M, M) inside each box of each image."""
        masks = self._mask_logits(features, boxes, image_shapes).float().sigmoid()
        return list(masks.split([len(b) for b in boxes]))


def select(
    boxes_R4: Tensor, scores_RK: Tensor, min_score: float, nms_iou: float, max_per_image: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Class-wise non-maximum suppression over all (region, class) pairs, best first.

    Suppression goes from the best score down, so a pair's fate depends on better pairs alone: the
    best candidates suffice as soon as enough of them survive. With thousands of classes this
    avoids nearly all the work and changes no result.

    Returns:
        boxes (n, 4), class indices (n,) and scores (n,), n <= max_per_image.
    """
    big = ((boxes_R4[:, 2:] - boxes_R4[:, :2]) >= 1.0).all(dim=1)
    boxes_R4, scores_RK = boxes_R4[big], scores_RK[big]
    flat = scores_RK.flatten()
    passing = torch.where(flat >= min_score)[0]
    take = _CANDIDATES
    while True:
        best = _best(flat, passing, take)
        region, class_index = best // scores_RK.shape[1], best % scores_RK.shape[1]
        boxes, scores = boxes_R4[region], flat[best]
        keep = _nms_by_class(boxes, scores, class_index, nms_iou)
        if len(keep) >= max_per_image or len(best) == len(passing):
            keep = keep[:max_per_image]
            return boxes[keep], class_index[keep], scores[keep]
        take *= 4


def _best(scores: Tensor, passing: Tensor, take: int) -> Tensor:
    """Indices of the ``take`` best of ``passing`` (more if scores tie), best first."""
    if take < len(passing):
        values = scores[passing]
        passing = passing[values >= values.topk(take).values[-1]]
    return passing[torch.sort(scores[passing], descending=True, stable=True).indices]


def _nms_by_class(boxes: Tensor, scores: Tensor, class_index: Tensor, iou: float) -> Tensor:
    """Boxes of different classes are moved apart; float64 keeps the moved corners exact."""
    if boxes.shape[0] == 0:
        return class_index
    span = boxes.max().double() + 1
    return box_ops.nms(boxes.double() + class_index[:, None] * span, scores.double(), iou)


def project_masks(masks: Tensor, boxes: Tensor, matched: Tensor, side: int) -> Tensor:
    """What each box shows of its instance's mask: (N, h, w), (P, 4), (P,) -> (P, side, side)."""
    if boxes.shape[0] == 0:
        return boxes.new_zeros((0, side, side))
    rois = torch.cat([matched[:, None].to(boxes), boxes], dim=1)
    return roi_align(masks[:, None].to(boxes), rois, (side, side), aligned=True)[:, 0]


def _gather(values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``; zeros where an image has no instances (its regions are background)."""
    if values.shape[0] == 0:
        return values.new_zeros((index.shape[0], *values.shape[1:]))
    return values[index]
