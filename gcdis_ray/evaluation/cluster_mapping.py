"""Outputs of the segmenter against true classes: counted where the images lie, matched once.

The label space is one: outputs of known classes and all true objects carry the category ids of the
data set, whatever files they come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.curating.outputs import Outputs
from gcdis_ray.data.crops.cut_spec import CutSpec
from gcdis_ray.data.images.image_files import ImageFile, ImageFiles
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.crop_labels import assignments_by_crop
from gcdis_ray.evaluation.crop_truth import CropTruth, by_image, true_objects
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import Terms, in_mapping_half
from gcdis_ray.evaluation.tables import CLUSTER_COUNTS
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.metrics.cluster_classes import Scope, count_pairs, dense, match_clusters
from gcdis_ray.metrics.detection_columns import best_of_image
from gcdis_ray.metrics.one_to_one import greedy_pairs
from gcdis_ray.metrics.row_overlaps import OBJECT_COLUMNS, overlap
from gcdis_ray.runtime.base import Work
from gcdis_ray.runtime.devices import Precision
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.members import Inputs

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class OutputMap:
    """What the outputs of the segmenter stand for.

    Args:
        column_of: output -> column of its class; outputs that stand for none are absent.
        rule: how it was found; ``source`` is the one that was used.
        note: why that is not the one that was asked for.
    """

    column_of: Mapping[int, int]
    rule: MappingConfig
    note: str | None = None

    def categories(self, classes: ClassColumns) -> dict[int, int]:
        """Output -> ``category_id``."""
        ids = [row["category_id"] for row in classes.categories]
        return {output: ids[column] for output, column in sorted(self.column_of.items())}


def map_outputs(
    inputs: Inputs,
    predictions: Table | None,
    classes: ClassColumns,
    truth: CropTruth,
    rule: MappingConfig,
    terms: Terms,
    work: Work,
) -> OutputMap:
    """What the outputs stand for, counted where ``mapping.source`` says."""
    note = None
    if rule.source == "train_gt" and not truth.num_matched and predictions is not None:
        rule = rule.model_copy(update={"source": "split_val"})  # leak-free as well
        told = "no crop of them matches a true object" if truth.num_objects else "no ground truth"
        note = f"unlabeled images cannot be mapped by: {told}"
    if predictions is None and rule.source in ("split_val", "detections"):
        rule = rule.model_copy(update={"source": "train_gt"})
        note = "there are no predictions to map by"
    instances = inputs.table("truth_instances")
    if rule.source == "train_gt":
        cluster_N = assignments_by_crop(inputs)["cluster_id"]
        counts = [counts_of_crops(truth, cluster_N[truth.crop_index_U])]
    else:
        task, seen = CountDetections(terms.iou, terms.best, rule.source == "split_val"), predictions
        if rule.source == "gt_crops" or seen is None:
            task, seen = _true_crops(inputs), inputs.table("images")
        found = work.map_shards(task, [seen, instances], gives=("cluster_counts",))
        counts = found["cluster_counts"].iter_shards()
    names = inputs.json("discovered_classes")
    column_of = match_outputs(counts, classes, classes.num_outputs(names), rule.scope)
    return OutputMap(column_of, rule, note)


def _true_crops(inputs: Inputs) -> CountTrueCrops:
    """True objects, cut out like the crops that the method has learned from."""
    stored, outputs = StoredMethod.read(inputs.beside("method")), None
    if inputs.has("curation"):
        outputs = Outputs.read(inputs.json("curation"))
        stored = stored.joined(outputs.groups) if outputs.any_joined else stored
    cut = CutSpec(**inputs.json("crop_spec"))
    return CountTrueCrops(ImageFiles.of(inputs), stored, cut, outputs)


_SEEN = ("jpeg", "mask_png")  # what a method looks at of a crop
_Crop = tuple[Mapping[str, Any], Mapping[str, Any]]  # an object and the crop that shows it


@dataclass(frozen=True)
class CountDetections:
    """Shard task ``[predictions, truth_instances]`` -> ``cluster_counts`` on validation images.

    Detections are matched to true objects greedily, one to one by falling IoU in every image; each
    match counts once.

    Args:
        min_iou: least overlap of a match.
        max_per_image: only the best of an image are matched.
        half: look at the images of :func:`in_mapping_half` only.
    """

    min_iou: float
    max_per_image: int
    half: bool = False

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        return self.count

    def count(self, index: int, predictions: pa.Table, truth: pa.Table) -> Mapping[str, pa.Table]:
        objects_of = true_objects(truth, "validation")
        best = best_of_image(
            predictions["image_id"].to_numpy(),
            predictions["score"].to_numpy(),
            self.max_per_image,
        )
        found_in = by_image(
            predictions.take(pa.array(np.sort(best))), (*OBJECT_COLUMNS, "class_index")
        )
        images = sorted(objects_of.keys() & found_in.keys())
        if self.half:
            mine = in_mapping_half(images)
            images = [image for image, is_mine in zip(images, mine, strict=True) if is_mine]
        pairs: Counter[tuple[int, int]] = Counter()
        for image_id in images:
            found, objects = found_in[image_id], objects_of[image_id]
            for p, g, _ in greedy_pairs(overlap(found, objects), self.min_iou):
                pairs[found[p]["class_index"], objects[g]["category_id"]] += 1
        return {"cluster_counts": counts_table(pairs)}


@dataclass(frozen=True)
class CountTrueCrops:
    """Shard task ``[images, truth_instances]`` -> ``cluster_counts`` on validation images.

    Every true object that is no crowd is cut out by its mask (by its box where it has none) and
    named by the discovery model. Objects of no extent are passed over.

    Args:
        files: reads the images.
        stored: the method that has discovered.
        cut: how the crops that it has learned from were cut.
        outputs: the classes that its clusters have become; None: the clusters themselves. What is
            named a rejected one is not counted; no true object is named a part that was split off.
    """

    files: ImageFiles
    stored: StoredMethod
    cut: CutSpec
    outputs: Outputs | None = None
    wants_gpu = True

    @property
    def precision(self) -> Precision:
        return self.stored.precision

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        trained = self.stored.open(device)
        classes = np.arange(trained.num_outputs)
        if self.outputs is not None:
            classes = self.outputs.class_of_group

        def count(index: int, images: pa.Table, truth: pa.Table) -> Mapping[str, pa.Table]:
            objects_of = true_objects(truth, "validation")
            row_of = {image_id: n for n, image_id in enumerate(images["image_id"].to_pylist())}
            pairs: Counter[tuple[int, int]] = Counter()
            told = [image_id for image_id in objects_of if image_id in row_of]
            places = pa.array([row_of[image_id] for image_id in told], pa.int64())
            files = self.files.read(images.take(places))
            shown = (
                self._crops(objects_of[image_id], file)
                for image_id, file in zip(told, files, strict=True)
            )
            if device != "cpu":  # one call for all: a few crops keep no GPU busy
                shown = [[crop for crops in shown for crop in crops]]
            for crops in shown:
                columns = {name: [crop[name] for _, crop in crops] for name in _SEEN}
                found = trained.infer(pa.table(columns)).probabilities_NC
                named = classes[found.argmax(axis=1)].tolist()
                for (row, _), output in zip(crops, named, strict=True):
                    if output >= 0:
                        pairs[output, row["category_id"]] += 1
            return {"cluster_counts": counts_table(pairs)}

        return count

    def _crops(self, objects: Sequence[Mapping[str, Any]], file: ImageFile) -> list[_Crop]:
        """Those of an image, each after its object."""
        from gcdis_ray.data.crops.crop_cutting import cut_image

        shown = [(row, rle) for row in objects if (rle := _mask(row)) is not None]
        crops = cut_image(file.pixels(), [rle for _, rle in shown], self.cut)
        return [(row, crop) for (row, _), crop in zip(shown, crops, strict=True)]


def _mask(row: Mapping[str, Any]) -> str | None:
    """The mask of a true object, or of its box if it has none; None if it is empty."""
    from gcdis_ray.masks import coco_rle

    height, width = row["height_px"], row["width_px"]
    if row["mask_rle"] is not None:
        return row["mask_rle"] if coco_rle.area(row["mask_rle"], height, width) else None
    x0, y0, x1, y1 = row["bbox_xyxy"]
    left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
    right, bottom = min(int(np.ceil(x1)), width), min(int(np.ceil(y1)), height)
    if right <= left or bottom <= top:
        return None
    window = np.ones((bottom - top, right - left), np.bool_)
    return coco_rle.encode_window(window, left, top, height, width)


def counts_table(pairs: Mapping[tuple[int, int], int]) -> pa.Table:
    """(output, category_id) -> how often, as a shard of ``cluster_counts``."""
    rows = [
        {"cluster_id": output, "category_id": category_id, "count": count}
        for (output, category_id), count in sorted(pairs.items())
    ]
    return pa.Table.from_pylist(rows, schema=CLUSTER_COUNTS)


def counts_of_crops(truth: CropTruth, cluster_U: NDArray[np.integer]) -> pa.Table:
    """``cluster_counts`` of crops that show a true object.

    Args:
        cluster_U: the label of each crop, in the order of ``truth``; -1: none.
    """
    keep = (truth.category_U >= 0) & (cluster_U >= 0)
    return pa.table(
        {
            "cluster_id": cluster_U[keep].astype(np.int32),
            "category_id": truth.category_U[keep],
            "count": np.ones(int(keep.sum()), np.int64),
        },
        schema=CLUSTER_COUNTS,
    )


def match_outputs(
    counts: Iterable[pa.Table], classes: ClassColumns, num_outputs: int, scope: Scope
) -> dict[int, int]:
    """Output -> column of the class it stands for; outputs that stand for none are absent.

    Args:
        counts: tables ``cluster_counts``; a pair may occur in several, in any order.
    """
    table = pa.concat_tables([CLUSTER_COUNTS.empty_table(), *counts])
    pairs = count_pairs(
        table["cluster_id"].to_numpy(),
        classes.columns(table["category_id"].to_numpy()),
        num_outputs,
        len(classes),
        table["count"].to_numpy(),
    )
    return match_clusters(dense(pairs), classes.column_of_output, scope)
