"""What the rest of the package knows of a detector, whichever library it is built from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gcdis_ray.errors import ArtifactError
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.instance_heads import ImageDetections


class Detector(nn.Module):
    """Mask R-CNN with class-agnostic box and mask heads.

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

    @property
    @abstractmethod
    def mask_head(self) -> nn.Module:
        """What turns the features of a box into its mask."""

    @abstractmethod
    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]: ...

    @abstractmethod
    def detect(
        self,
        images: Sequence[Tensor],
        *,
        min_score: float,
        nms_iou: float,
        max_per_image: int,
        score: str = "box",
    ) -> list[ImageDetections]:
        """Objects in uint8 (3, H, W) images, best first.

        Args:
            score: ``box`` = class probability of the box head, ``rpn`` = objectness of the
                region proposal, ``mean`` = their geometric mean.
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


def load_all_but_classifier(model: Detector, tensors: Mapping[str, Tensor], where: str) -> None:
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
