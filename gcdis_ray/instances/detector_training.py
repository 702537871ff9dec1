"""Training a detector: what the proposer and the segmenter have in common."""

from __future__ import annotations

import threading
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gcdis_ray.config import TrainingConfig
from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.instance_heads import Target
from gcdis_ray.instances.mask_rcnn_base import MaskRCNN
from gcdis_ray.instances.training_images import ImageAugmentConfig, Objects, Sample, Scenes
from gcdis_ray.store.artifacts import Table
from gcdis_ray.training.task import TrainingTask

_AHEAD_STEPS = 4  # whose image files a worker reads while it makes a batch of its parts
_AUGMENT = 1_000_003  # tag of the augmentation's random stream


@dataclass
class DetectionTask(TrainingTask):
    """Draws images from one or two streams in a fixed ratio and trains a Mask R-CNN on them."""

    config: TrainingConfig
    seed: int
    detector: DetectorConfig
    augment: ImageAugmentConfig
    cache_mb: int
    files: ImageFiles = field(default_factory=ImageFiles, kw_only=True)  # of the images drawn
    listed: Table | None = field(default=None, kw_only=True)  # the images without files
    _model: MaskRCNN = field(init=False, repr=False)
    _streams: list[Scenes] = field(init=False, repr=False)
    _orders: dict[tuple[int, int], NDArray[np.int64]] = field(
        init=False, repr=False, default_factory=dict
    )
    _drawing: threading.Lock = field(init=False, repr=False)  # of _orders, once it is set up

    @abstractmethod
    def read_streams(self) -> list[Scenes]:
        """The sets of images to draw from, none empty."""

    @abstractmethod
    def stream_share(self) -> float:
        """Share of a batch that comes from the first stream; ignored if there is only one."""

    @abstractmethod
    def labels_and_weights(
        self, stream: int, objects: Objects, step: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Labels (n,) from 1 and loss weights (n,) of an image's objects."""

    @abstractmethod
    def build(self) -> MaskRCNN:
        """The model at the start of training."""

    def setup(self, device: torch.device) -> nn.Module:
        self._streams, self._drawing = self.read_streams(), threading.Lock()
        self._model = self.build().to(device).train()
        if self.config.precision == "bf16" and device.type != "cpu":
            self._model.to_channels_last()
        return self._model

    def batch(self, step: int, part: int) -> dict[str, Any]:
        size = self.config.batch_size // self.config.micro_batches
        slots, images, targets = range(part * size, (part + 1) * size), [], []
        for later in range(step, min(step + 1 + _AHEAD_STEPS, self.config.steps)):
            for stream, index in (self._draw(later, slot) for slot in slots):
                self._streams[stream].ahead([index])
        for slot in slots:
            stream, index = self._draw(step, slot)
            rng = np.random.default_rng([self.seed, _AUGMENT, step, slot])
            scenes = self._streams[stream]
            sides = (self.detector.min_side_px, self.detector.max_side_px)
            sample = scenes.sample(index, sides, self.augment, rng)
            labels, weights = self.labels_and_weights(stream, scenes.objects(index), step)
            images.append(torch.from_numpy(sample.image).permute(2, 0, 1).contiguous())
            targets.append(_target(sample, labels, weights))
        return {"images": images, "targets": targets}

    def snapshot(self) -> dict[str, Tensor]:
        return self._model.state_dict()

    def _draw(self, step: int, slot: int) -> tuple[int, int]:
        """Stream and image of one place in the batch: each stream runs through its epochs, the
        streams' places are spread evenly over the batch."""
        share = self.stream_share() if len(self._streams) > 1 else 1.0
        batch_size = self.config.batch_size
        firsts = round(batch_size * share)
        before = slot * firsts // batch_size
        is_first = (slot + 1) * firsts // batch_size > before
        position = step * firsts + before
        if not is_first:
            position = step * (batch_size - firsts) + slot - before
        stream = 0 if is_first else 1
        epoch, place = divmod(position, len(self._streams[stream]))
        return stream, int(self._order(stream, epoch)[place])

    def _order(self, stream: int, epoch: int) -> NDArray[np.int64]:
        key = (stream, epoch)
        with self._drawing:
            if key not in self._orders:
                for old in [k for k in self._orders if k[0] == stream and k[1] < epoch - 1]:
                    del self._orders[old]
                self._orders[key] = self._streams[stream].order(self.seed, stream, epoch)
            return self._orders[key]


def _target(sample: Sample, labels: NDArray[np.int64], weights: NDArray[np.float64]) -> Target:
    return {
        "boxes": torch.from_numpy(sample.boxes_xyxy),
        "labels": torch.from_numpy(labels),
        "weights": torch.from_numpy(weights.astype(np.float32)),
        "masks": torch.from_numpy(sample.masks),
        "has_mask": torch.from_numpy(sample.has_mask),
        "mask_scale": torch.tensor(sample.mask_scale, dtype=torch.float32),
        "ignore": torch.from_numpy(sample.crowds_xyxy),
    }
