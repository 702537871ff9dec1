"""Training the proposer: labeled images, all known classes merged into one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.artifacts import Table
from gcdis_ray.data.scenes import Objects, Scenes, read_instances
from gcdis_ray.errors import DataError
from gcdis_ray.models.detector import Detector
from gcdis_ray.models.mask_rcnn import build_mask_rcnn
from gcdis_ray.tasks.detection import DetectionTask


@dataclass
class ProposingTask(DetectionTask):
    """Where is an object, of whatever class?"""

    images: Table = field(kw_only=True)
    instances: Table = field(kw_only=True)
    member = "proposer"

    def read_streams(self) -> list[Scenes]:
        scenes = Scenes(
            self.images, read_instances(self.instances), self.cache_mb << 20, self.files
        )
        if not len(scenes):
            raise DataError(
                "no labeled image has an object",
                where="table 'instances'",
                fix="check the labeled annotations, or use stages.propose.source: external",
            )
        return [scenes]

    def stream_share(self) -> float:
        return 1.0

    def build(self) -> Detector:
        return build_mask_rcnn(self.detector, 1, self.seed)

    def labels_and_weights(
        self, stream: int, objects: Objects, step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        count = len(objects.class_index)
        return np.ones(count, np.int64), np.ones(count)
