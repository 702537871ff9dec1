"""Objects of a run: those that discovery has labeled, and those that its segmenter predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gcdis_ray.errors import ConfigError
from gcdis_ray.exporting.classes import classes_of
from gcdis_ray.exporting.objects import (
    ExportedObject,
    Found,
    ObjectSet,
    box_of,
    rounded,
    rounded_vector,
)
from gcdis_ray.masks.coco_rle import bbox_xyxy
from gcdis_ray.masks.instance_masks import with_made_masks
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.store.members import Inputs

_IMAGES = ("image_index", "source")


@dataclass(frozen=True)
class Limits:
    """Which objects are exported.

    Args:
        min_score: probability of the class, or score of a prediction.
        min_reliability: rank of a pseudo-label within its class, in (0, 1].
        with_labels: labels that were given as well.
        embeddings: with the vector of each object in the space of discovery.
    """

    min_score: float = 0.0
    min_reliability: float = 0.0
    with_labels: bool = False
    embeddings: bool = False


def pseudo_labels(run: OpenedRun, limits: Limits) -> ObjectSet:
    """Objects of unlabeled images with the class that discovery took them for.

    Raises:
        ConfigError: the run has none, or what they are made of has not been made.
    """
    try:
        run.giver("pseudo_labels")
    except ConfigError as error:
        raise error.at(
            run.source, "export --of predictions, or --format folders, if the run makes those"
        ) from None
    labels = ["pseudo_labels", "proposals", "discovered_classes"]
    vectors = ["assignments"] if limits.embeddings else []
    given = ["instances", "crops"] if limits.with_labels else []
    inputs = run.inputs("images", *labels, *vectors, *given, optional=(*_IMAGES, "instance_masks"))
    readers: list[Callable[[int], Found]] = [_PseudoLabels(inputs, limits)]
    if limits.with_labels:
        readers.insert(0, _GivenLabels(inputs, limits))
    splits = frozenset({"labeled", "unlabeled"} if limits.with_labels else {"unlabeled"})
    classes = classes_of(run, inputs.json("discovered_classes"))
    return ObjectSet(inputs, classes, splits, readers)


def predictions(run: OpenedRun, limits: Limits) -> ObjectSet:
    """What the segmenter predicts: on a run's validation images, or on those of ``gcdis predict``.

    Raises:
        ConfigError: nothing has been predicted; options that predictions know nothing of.
    """
    if limits.with_labels or limits.min_reliability:
        asked = "--with-labels" if limits.with_labels else "--min-reliability"
        raise ConfigError(
            "predictions have a score, and no labels beside them",
            where=asked,
            fix="leave it out, or export --of pseudo-labels",
        )
    inputs = run.inputs("images", "predictions", "segmenter_classes", optional=_IMAGES)
    classes = classes_of(run, inputs.json("segmenter_classes"))
    return ObjectSet(inputs, classes, frozenset({"validation"}), [_Predictions(inputs, limits)])


@dataclass(frozen=True)
class _PseudoLabels:
    inputs: Inputs
    limits: Limits

    def __call__(self, shard: int) -> Found:
        labels = self.inputs.table("pseudo_labels").shard(shard)
        rows = labels.to_pylist()
        if not rows:
            return
        columns = ["proposal_id", "mask_rle", "height_px", "width_px"]
        proposals = self.inputs.table("proposals").shard(shard, columns)
        proposal_of = {row["proposal_id"]: row for row in proposals.to_pylist()}
        vectors = _vectors(self.inputs, shard) if self.limits.embeddings else {}
        for row in rows:
            score, reliability = rounded(row["probability"]), rounded(row["reliability"])
            if score < self.limits.min_score or reliability < self.limits.min_reliability:
                continue
            crop, proposal = row["crop_index"], proposal_of[row["source_id"]]
            mask, size = proposal["mask_rle"], (proposal["height_px"], proposal["width_px"])
            more = {"reliability": reliability, "crop_index": crop}
            if crop in vectors:
                more["embedding"] = rounded_vector(vectors[crop])
            # A detector's box is not that of its mask; who corrects the one expects the other.
            box = bbox_xyxy(mask, *size)
            yield row["image_id"], ExportedObject(row["cluster_id"], box, mask, score, more)


@dataclass(frozen=True)
class _GivenLabels:
    inputs: Inputs
    limits: Limits

    def __call__(self, shard: int) -> Found:
        instances = self.inputs.table("instances").shard(shard)
        made = None
        if self.inputs.has("instance_masks"):
            made = self.inputs.table("instance_masks").shard(shard)
        crops = self.inputs.table("crops").shard(shard, ["crop_index", "source_id", "class_index"])
        crop_of = {
            r["source_id"]: r["crop_index"] for r in crops.to_pylist() if r["class_index"] >= 0
        }
        vectors = _vectors(self.inputs, shard) if self.limits.embeddings else {}
        for row in with_made_masks(instances, made).to_pylist():
            if row["class_index"] < 0:
                continue
            more, crop = {}, crop_of.get(row["instance_id"])
            if crop is not None:
                more["crop_index"] = crop
            if crop in vectors:
                more["embedding"] = rounded_vector(vectors[crop])
            box, mask = box_of(row["bbox_xyxy"]), row["mask_rle"]
            yield (
                row["image_id"],
                ExportedObject(row["class_index"], box, mask, None, more, row["iscrowd"]),
            )


@dataclass(frozen=True)
class _Predictions:
    inputs: Inputs
    limits: Limits

    def __call__(self, shard: int) -> Found:
        for row in self.inputs.table("predictions").shard(shard).to_pylist():
            if (score := rounded(row["score"])) >= self.limits.min_score:
                box = box_of(row["bbox_xyxy"])
                yield (
                    row["image_id"],
                    ExportedObject(row["class_index"], box, row["mask_rle"], score),
                )


def _vectors(inputs: Inputs, shard: int) -> dict[int, np.ndarray]:
    """crop_index -> (F,) float32."""
    rows = inputs.table("assignments").shard(shard, ["crop_index", "embedding"])
    values = rows["embedding"].combine_chunks()
    return {
        crop: np.asarray(values[place].values, np.float32)
        for place, crop in enumerate(rows["crop_index"].to_pylist())
    }
