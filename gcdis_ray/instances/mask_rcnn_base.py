"""Mask R-CNN of any library: how it trains, and how it answers as a detector."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gcdis_ray.data.upload import upload
from gcdis_ray.errors import ArtifactError
from gcdis_ray.instances.batches import in_batches
from gcdis_ray.instances.detector import Boxed, Found, Limits
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.instance_heads import BoxDetections
from gcdis_ray.instances.net_pixels import fitted_size, mask_in_image, resized

_PADDED_TO = 32  # px; the largest stride of a backbone stage
_BATCH, _BATCH_PX = 32, 4 * 2**20
"""Images of a batch on a GPU, and their pixels, at most. Several actors share its memory: of
800 x 1333 px there are three, which take some 4 GB."""


class _Seen(NamedTuple):
    """An image as the net sees it, uint8 (3, h, w), image px per net px as factors of a box, and
    the size of the image, (height, width)."""

    image: Tensor
    scale_4: NDArray[np.float32]
    size: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """(height, width) that the net makes of it."""
        return padded_size([self.image.shape[-2:]])


class _Asked(NamedTuple):
    """An image, and the boxes in it whose masks are wanted, px of the image."""

    seen: _Seen
    boxes_xyxy: NDArray[np.float32]


class _Detected(NamedTuple):
    """:class:`BoxDetections` of an image, on the host."""

    boxes_xyxy: NDArray[np.float32]
    class_index: list[int]
    scores: list[float]
    masks: NDArray[np.float32]


def padded_size(sizes: Iterable[Sequence[int]]) -> tuple[int, int]:
    """(height, width) that images of these sizes have in one batch."""
    height, width = (-(-max(side) // _PADDED_TO) * _PADDED_TO for side in zip(*sizes, strict=True))
    return height, width


def _most_together(seen: _Seen) -> int:
    """Images like this one in a batch."""
    return min(_BATCH, max(1, _BATCH_PX // math.prod(seen.padded)))


def _pasted(asked: _Asked, masks: NDArray[np.float32]) -> list[str | None]:
    """Masks of boxes, (n, M, M), in the image."""
    return [
        mask_in_image(mask, box, *asked.seen.size)
        for mask, box in zip(masks, asked.boxes_xyxy, strict=True)
    ]


def _in_image(seen: _Seen, found: _Detected) -> list[Found]:
    """What was detected, in the image; without what has no pixel there."""
    objects = []
    for box, class_index, score, mask in zip(
        found.boxes_xyxy * seen.scale_4, found.class_index, found.scores, found.masks, strict=True
    ):
        rle = mask_in_image(mask, box, *seen.size)
        if rle is not None:
            objects.append(Found(tuple(box.tolist()), class_index, score, rle))
    return objects


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
        seen = self._see(pixels)
        return _in_image(seen, self._detected([seen], limits)[0])

    def find_all(self, images: Iterable[NDArray[np.uint8]], limits: Limits) -> list[list[Found]]:
        if self.mean.device.type == "cpu":
            return [self.find(pixels, limits) for pixels in images]
        return self.find_in_batches(images, limits)

    def find_in_batches(
        self, images: Iterable[NDArray[np.uint8]], limits: Limits
    ) -> list[list[Found]]:
        """As :meth:`find_all` does it on a GPU."""
        return in_batches(
            map(self._see, images),
            lambda seen: seen.padded,
            _most_together,
            lambda batch: self._detected(batch, limits),
            _in_image,
        )

    def _detected(self, batch: Sequence[_Seen], limits: Limits) -> list[_Detected]:
        found = self.detect(
            [upload(seen.image, self.mean.device) for seen in batch],
            min_score=limits.min_score,
            nms_iou=limits.nms_iou,
            max_per_image=limits.max_per_image,
            score=limits.score,
        )
        return [
            _Detected(
                one.boxes_xyxy.cpu().numpy(),
                one.class_index.tolist(),
                one.scores.tolist(),
                one.masks.cpu().numpy(),
            )
            for one in found
        ]

    def masks_of_boxes(
        self, pixels: NDArray[np.uint8], boxes_xyxy: NDArray[np.float32]
    ) -> list[str | None]:
        asked = _Asked(self._see(pixels), boxes_xyxy)
        return _pasted(asked, self._masks([asked])[0])

    def masks_of_all_boxes(self, images: Iterable[Boxed]) -> list[list[str | None]]:
        if self.mean.device.type == "cpu":
            return [self.masks_of_boxes(pixels, boxes) for pixels, boxes in images]
        return self.masks_in_batches(images)

    def masks_in_batches(self, images: Iterable[Boxed]) -> list[list[str | None]]:
        """As :meth:`masks_of_all_boxes` does it on a GPU."""
        return in_batches(
            (_Asked(self._see(pixels), boxes) for pixels, boxes in images),
            lambda asked: asked.seen.padded,
            lambda asked: _most_together(asked.seen),
            self._masks,
            _pasted,
        )

    def _masks(self, batch: Sequence[_Asked]) -> list[NDArray[np.float32]]:
        images = [upload(asked.seen.image, self.mean.device) for asked in batch]
        boxes = [torch.from_numpy(asked.boxes_xyxy / asked.seen.scale_4) for asked in batch]
        return [masks.cpu().numpy() for masks in self.masks_in_boxes(images, boxes)]

    def to_channels_last(self) -> None:
        """Convolutions in bf16 are fastest that way on a GPU, and frozen norms leave it so. Images,
        too: a strategy may have weights of its own layout."""
        self.layout = torch.channels_last
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def pyramid(self, images_N3HW: Tensor) -> dict[str, Tensor]:
        return self.backbone((images_N3HW - self.mean) / self.std)

    def _see(self, pixels: NDArray[np.uint8]) -> _Seen:
        height, width = pixels.shape[:2]
        sides = (self.config.min_side_px, self.config.max_side_px)
        seen = resized(pixels, fitted_size(height, width, sides))
        scale = np.array([width / seen.shape[1], height / seen.shape[0]] * 2, np.float32)
        image = torch.from_numpy(seen).permute(2, 0, 1).contiguous()
        return _Seen(image, scale, (height, width))

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
