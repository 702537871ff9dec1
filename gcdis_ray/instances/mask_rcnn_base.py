"""Mask R-CNN of any library: how it trains, and how it answers as a detector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gcdis_ray.errors import ArtifactError
from gcdis_ray.instances.detector import Found, Limits
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.instance_heads import BoxDetections
from gcdis_ray.instances.net_pixels import fitted_size, mask_in_image, resized


class MaskRCNN(nn.Module):
    """Mask R-CNN with class-agnostic box and mask heads: a
    :class:`~gcdis_ray.instances.detector.Detector` that can be trained.

    ``forward(batch)`` gives the training losses and their sum ``total``. A batch is
    ``{"images": [uint8 (3, H, W) RGB], "targets": [Target]}`` with sizes already scaled to the
    configured sides. Regions are sampled with torch's generator, which the training loop seeds.

    ``backbone`` maps normalised images to the pyramid's levels; ``mean`` and ``std`` (3, 1, 1) say
    how they are normalised.
    """

    config: DetectorConfig
    classifier_prefix: str  # of the names of the classifier's tensors
    backbone: nn.Module
    mean: Tensor
    std: Tensor
    layout: torch.memory_format = torch.contiguous_format  # of images that enter the backbone

    @property
    @abstractmethod
    def mask_head(self) -> nn.Module:
        """What turns the features of a box into its mask."""

    @abstractmethod
    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]: ...

    def find(self, pixels: NDArray[np.uint8], limits: Limits) -> list[Found]:
        height, width = pixels.shape[:2]
        seen, scale = self._seen(pixels)
        found = self.detect(
            [seen],
            min_score=limits.min_score,
            nms_iou=limits.nms_iou,
            max_per_image=limits.max_per_image,
            score=limits.score,
        )[0]
        objects = []
        for box, class_index, score, mask in zip(
            found.boxes_xyxy.cpu().numpy() * scale,
            found.class_index.tolist(),
            found.scores.tolist(),
            found.masks.cpu().numpy(),
            strict=True,
        ):
            rle = mask_in_image(mask, box, height, width)
            if rle is not None:
                objects.append(Found(tuple(box.tolist()), class_index, score, rle))
        return objects

    def masks_of_boxes(
        self, pixels: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> list[str | None]:
        height, width = pixels.shape[:2]
        seen, scale = self._seen(pixels)
        masks = self.masks_in_boxes([seen], [torch.from_numpy(boxes_xyxy / scale)])[0]
        return [
            mask_in_image(mask, box, height, width)
            for mask, box in zip(masks.cpu().numpy(), boxes_xyxy, strict=True)
        ]

    def to_channels_last(self) -> None:
        """Convolutions in bf16 are fastest that way on a GPU, and frozen norms leave it so. Images,
        too: a strategy may have weights of its own layout."""
        self.layout = torch.channels_last
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def pyramid(self, images_N3HW: Tensor) -> dict[str, Tensor]:
        return self.backbone((images_N3HW - self.mean) / self.std)

    def _seen(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, NDArray[np.float32]]:
        """An image as the net sees it, uint8 (3, h, w), and image px per net px as factors (4,) of
        a box."""
        height, width = pixels.shape[:2]
        sides = (self.config.min_side_px, self.config.max_side_px)
        seen = resized(pixels, fitted_size(height, width, sides))
        scale = np.array([width / seen.shape[1], height / seen.shape[0]] * 2, np.float32)
        return torch.from_numpy(seen).permute(2, 0, 1).contiguous(), scale

    @abstractmethod
    def detect(
        self,
        images: Sequence[Tensor],
        *,
        min_score: float,
        nms_iou: float,
        max_per_image: int,
        score: str = "box",
    ) -> list[BoxDetections]:
        """Objects in uint8 (3, H, W) images, best first.

        Args:
            min_score, nms_iou, max_per_image, score: see
                :class:`~gcdis_ray.instances.detector.Limits`.
        """

    @abstractmethod
    def masks_in_boxes(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[Tensor]:
        """The mask head's view of given boxes: nothing is proposed, suppressed or moved.

        Args:
            images: uint8 (3, H, W).
            boxes: per image (n, 4) float32 px, n >= 1.

        Returns:
            per image (n, M, M) float32 probabilities inside each box.
        """


def load_all_but_classifier(model: MaskRCNN, tensors: Mapping[str, Tensor], where: str) -> None:
    """Take over backbone, pyramid, proposals, box trunk and mask head from another detector.

    Raises:
        ArtifactError: the other detector has a different architecture.
    """
    own = model.state_dict()
    shared = {k: v for k, v in tensors.items() if not k.startswith(model.classifier_prefix)}
    wanted = {k: v.shape for k, v in own.items() if not k.startswith(model.classifier_prefix)}
    if {k: v.shape for k, v in shared.items()} != wanted:
        raise ArtifactError(
            "the proposer has another architecture than the segmenter",
            where=where,
            fix="give both stages the same detector settings, or set init_from_proposer: false",
        )
    model.load_state_dict({**own, **shared})
