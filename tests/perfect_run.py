"""A run whose result is known in advance, as in-memory artifacts: its proposals are the truth."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from scene_tables import TINY, FakeArtifact, memory_table, memory_tensors, rectangle_scenes
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.config import ComputeConfig
from gcdis_ray.evaluation.scored_images import rules_of
from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.stages import evaluate
from gcdis_ray.store.storage import LocalStorage

SPLITS = ("labeled", "unlabeled", "unlabeled", "validation")
CATEGORIES = [  # class 0 of the scenes is known, 1 and 2 are novel; a fourth never occurs
    {"category_id": 1, "name": "red", "known": True, "class_index": 0},
    {"category_id": 2, "name": "green", "known": False, "class_index": -1},
    {"category_id": 3, "name": "blue", "known": False, "class_index": -1},
    {"category_id": 4, "name": "never", "known": False, "class_index": -1},
]
CLUSTER_OF = {0: 0, 1: 2, 2: 1}  # scene class -> output: novel outputs are permuted
NOTHING: list[list[dict[str, Any]]] = [[] for _ in SPLITS]
_CORNER = encode_window(np.ones((3, 3), bool), 0, 0, 64, 64)


def score(
    artifacts: Mapping[str, Any],
    predictions: Sequence[Sequence[Mapping[str, Any]]],
    kept: int = 900,
    **config: Any,
) -> dict[str, Any]:
    """Metrics as the stage finds them, with ``predictions`` (rows by shard) for the segmenter's.

    Args:
        kept: detections per image that are said to have been kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        compute = ComputeConfig(runtime="local", workers=1, threads=1)
        attempt = Attempt(LocalStorage(folder), "evaluate/key", "attempt-0", SCHEMAS)
        work = StageWork(attempt, lambda: LocalRuntime(compute), compute, 0, lambda progress: None)
        table = memory_table("predictions", predictions)
        settings = evaluate.Config.model_validate({"kmeans_n_init": 2} | config)
        rules = rules_of(artifacts["ground_truth"].table("truth_images"))
        terms = settings.terms(rules, kept)
        inputs = inputs_of(evaluate, artifacts)
        return json.loads(json.dumps(evaluate.score(inputs, table, settings, terms, work)))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def perfect_run(
    *, wrong_every: int = 0, truth: bool = True, seed: int = 0
) -> tuple[dict[str, Any], list[list[dict[str, Any]]]]:
    """Artifacts of a run: proposals are the true masks, and a box of nothing in each image.

    Args:
        wrong_every: the cluster of every n-th crop is the last one whatever it shows.

    Returns:
        artifacts by stage, and perfect predictions for the validation images, by shard.
    """
    scenes = rectangle_scenes(SPLITS, per_shard=8, seed=seed)
    proposals, crops, embeddings, assignments, pseudo = ([[] for _ in SPLITS] for _ in range(5))
    heat: list[list[dict[str, Any]]] = [[]]  # of all crops, in one shard
    number = 0
    for shard, split in enumerate(SPLITS):
        for image in scenes.images.shard(shard).to_pylist():
            for row in scenes.truth[image["image_id"]]:
                if split == "validation":
                    continue
                labeled = split == "labeled"
                if labeled and row["class_index"] > 0:
                    continue
                if not labeled:
                    proposals[shard].append(_proposal(row, number))
                cluster = CLUSTER_OF[row["class_index"]]
                if wrong_every and not labeled and number % wrong_every == 0:
                    cluster = 2
                known = row["class_index"] if labeled else -1
                crops[shard].append(_crop(row, number, known))
                angle = torch.tensor(row["class_index"] * 2.0)
                embeddings[shard].append(
                    {
                        "crop_index": number,
                        "class_index": known,
                        "embedding": [float(angle.cos()), float(angle.sin())],
                    }
                )
                assignments[shard].append(_assignment(number, known, cluster))
                heat[0].append({"crop_index": number, "temperature": 0.1, "headness": 0.0})
                if not labeled:
                    pseudo[shard].append(_pseudo_label(row, number, cluster))
                number += 1
            if split == "unlabeled":  # a proposal of nothing, and no crop of it
                blank = dict(scenes.truth[image["image_id"]][0])
                blank |= {"bbox_xyxy": [0, 0, 3, 3], "mask_rle": _CORNER}
                proposals[shard].append(_proposal(blank, 10_000 + image["image_id"]))
    true_rows, image_rows, predictions = ([[] for _ in SPLITS] for _ in range(3))
    for shard, split in enumerate(SPLITS):
        for image in scenes.images.shard(shard).to_pylist():
            if split == "labeled":
                continue
            image_rows[shard].append(
                {k: image[k] for k in ("image_id", "height_px", "width_px")} | {"split": split}
            )
            for row in scenes.truth[image["image_id"]]:
                known = row["class_index"] if row["class_index"] == 0 else -1
                true_rows[shard].append(row | {"class_index": known, "split": split})
                if split == "validation":
                    keep = ("image_id", "bbox_xyxy", "mask_rle", "height_px", "width_px")
                    predictions[shard].append(
                        {k: row[k] for k in keep}
                        | {"class_index": CLUSTER_OF[row["class_index"]], "score": 0.9}
                    )
    outputs = [
        {"class_index": k, "name": f"n{k}", "known": k == 0, "category_id": 1 if k == 0 else None}
        for k in range(3)
    ]
    model = build_mask_rcnn(TINY, 3, seed=0)
    artifacts = {
        "ingest": FakeArtifact(
            {
                "images": scenes.images,
                "classes": [{"class_index": 0, "category_id": 1, "name": "red"}],
            }
        ),
        "ground_truth": FakeArtifact(
            {
                "truth_images": memory_table("truth_images", image_rows if truth else NOTHING),
                "truth_instances": memory_table("truth_instances", true_rows if truth else NOTHING),
                "categories": CATEGORIES if truth else CATEGORIES[:1],
            }
        ),
        "propose": FakeArtifact({"proposals": memory_table("proposals", proposals)}),
        "crop": FakeArtifact({"crops": memory_table("crops", crops), "crop_spec": {}}),
        "embed": FakeArtifact({"embeddings": memory_table("embeddings", embeddings)}),
        "count": FakeArtifact(
            {"class_count": {"num_classes": 3, "interval": [3, 4], "method": "given"}}
        ),
        "discover": FakeArtifact(
            {
                "method": {},
                "assignments": memory_table("assignments", assignments),
                "headness": memory_table("headness", heat),
                "discovered_classes": outputs,
            }
        ),
        "label": FakeArtifact({"pseudo_labels": memory_table("pseudo_labels", pseudo)}),
        "segment": FakeArtifact(
            {
                "segmenter": memory_tensors(model.state_dict()),
                "segmenter_spec": detector_spec(TINY, 3),
                "segmenter_classes": outputs,
            }
        ),
    }
    return artifacts, predictions


def _proposal(row: dict[str, Any], number: int) -> dict[str, Any]:
    keep = ("image_id", "bbox_xyxy", "mask_rle", "height_px", "width_px", "area_px")
    values = {k: row[k] for k in keep}
    return values | {"proposal_id": number, "objectness": 0.9, "origin": "model"}


def _crop(row: dict[str, Any], number: int, known: int) -> dict[str, Any]:
    return {
        "crop_index": number,
        "image_id": row["image_id"],
        "source_id": number,
        "class_index": known,
        "window_xyxy": [0, 0, 8, 8],
        "bbox_xyxy": row["bbox_xyxy"],
        "jpeg": png(70 * row["class_index"]),
        "mask_png": png(255),
    }


def _assignment(number: int, known: int, cluster: int) -> dict[str, Any]:
    return {
        "crop_index": number,
        "class_index": known,
        "cluster_id": cluster,
        "topk_ids": [cluster],
        "topk_probabilities": [0.9],
        "embedding": [1.0, 0.0],
    }


def _pseudo_label(row: dict[str, Any], number: int, cluster: int) -> dict[str, Any]:
    return {
        "crop_index": number,
        "image_id": row["image_id"],
        "source_id": number,
        "cluster_id": cluster,
        "probability": 0.9,
        "stability": 1.0,
        "reliability": 0.05 if cluster == 2 else 1.0,
    }
