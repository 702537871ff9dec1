"""Training the segmenter: ground truth of labeled images, weighted pseudo-labels of unlabeled ones.

Reliability-based dynamic learning (paper "GCDIS"): every pseudo-labeled instance has the weight
kappa_t(u), which starts at full and fades the earlier the less reliable the label is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.clustering.reliability import Decay, kappa
from gcdis_ray.errors import DataError
from gcdis_ray.instances.detector_config import ClassifierConfig
from gcdis_ray.instances.detector_training import DetectionTask
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.instances.mask_rcnn_base import MaskRCNN, load_all_but_classifier
from gcdis_ray.instances.training_images import Objects, Scenes, read_instances, read_pseudo_labels
from gcdis_ray.store.artifacts import Table, TensorFile


@dataclass
class SegmentationTask(DetectionTask):
    """Find, mask and name objects of known and discovered classes.

    Args:
        made: masks to learn from of labeled objects that came without; none: they teach boxes and
            classes alone.
    """

    images: Table = field(kw_only=True)
    instances: Table = field(kw_only=True)
    made: Table | None = field(kw_only=True, default=None)
    proposals: Table = field(kw_only=True)
    pseudo_labels: Table = field(kw_only=True)
    proposer: TensorFile | None = field(kw_only=True)
    num_classes: int = field(kw_only=True)
    classifier: ClassifierConfig = field(kw_only=True)
    labeled_share: float = field(kw_only=True)
    decay: Decay = field(kw_only=True)
    scale: float = field(kw_only=True)
    drop_share: float = field(kw_only=True)
    member = "segmenter"

    def read_streams(self) -> list[Scenes]:
        pseudo = read_pseudo_labels(self.pseudo_labels, self.proposals)
        cache_bytes = (self.cache_mb << 20) // 2
        told = read_instances(self.instances, self.made)
        labeled = Scenes(self.images, told, cache_bytes, self.files, self.listed)
        unlabeled = Scenes(self.images, pseudo, cache_bytes, self.files, self.listed)
        if not len(labeled):
            raise DataError("no labeled image has an object", where="table 'instances'")
        return [labeled, unlabeled] if len(unlabeled) else [labeled]

    def stream_share(self) -> float:
        return self.labeled_share

    def build(self) -> MaskRCNN:
        model = build_mask_rcnn(self.detector, self.num_classes, self.seed, self.classifier)
        if self.proposer is not None:
            load_all_but_classifier(model, self.proposer.load(), "stages.segment.detector")
        return model

    def labels_and_weights(
        self, stream: int, objects: Objects, step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        labels = objects.class_index + 1
        if stream == 0:
            return labels, np.ones(len(labels))
        weights = kappa(
            objects.rank,
            step / self.config.steps,
            self.decay,
            scale=self.scale,
            drop_share=self.drop_share,
            global_rank_N=objects.global_rank,
        )
        return labels, weights
