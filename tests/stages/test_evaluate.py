"""Stage evaluate: the numbers of runs whose result is known in advance."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scene_tables import TINY, FakeArtifact, memory_table, memory_tensors, rectangle_scenes

from gcdis_ray.models.mask_rcnn import build_mask_rcnn
from gcdis_ray.stages import evaluate
from gcdis_ray.tasks.inference import detector_spec
from gcdis_ray.tasks.scoring import Scorer, Settings

SPLITS = ("labeled", "unlabeled", "unlabeled", "validation")
CATEGORIES = [  # class 0 of the scenes is known, 1 and 2 are novel; a fourth never occurs
    {"category_id": 1, "name": "red", "known": True, "class_index": 0},
    {"category_id": 2, "name": "green", "known": False, "class_index": -1},
    {"category_id": 3, "name": "blue", "known": False, "class_index": -1},
    {"category_id": 4, "name": "never", "known": False, "class_index": -1},
]
CLUSTER_OF = {0: 0, 1: 2, 2: 1}  # scene class -> output: novel outputs are permuted
SETTINGS = Settings(
    mapping_source="train_gt",
    mapping_scope="novel_only",
    match_iou=0.5,
    kmeans_n_init=2,
    kmeans_on_pixels=True,
)


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _run(
    *, wrong_every: int = 0, truth: bool = True, seed: int = 0
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Artifacts of a run: proposals are the true masks, and a box of nothing in each image.

    Args:
        wrong_every: the cluster of every n-th crop is the last one whatever it shows.

    Returns:
        artifacts by stage, and perfect predictions for the validation images.
    """
    scenes = rectangle_scenes(SPLITS, per_shard=8, seed=seed)
    proposals, crops, embeddings, assignments, pseudo = ([[] for _ in SPLITS] for _ in range(5))
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
                if not labeled:
                    pseudo[shard].append(_pseudo_label(row, number, cluster))
                number += 1
            if split == "unlabeled":  # a proposal of nothing, and no crop of it
                blank = dict(scenes.truth[image["image_id"]][0])
                blank |= {"bbox_xyxy": [0, 0, 3, 3], "mask_rle": "0c0004"}
                blank["mask_rle"] = _corner_rle()
                proposals[shard].append(_proposal(blank, 10_000 + image["image_id"]))
    true_rows, image_rows, predictions = [], [], []
    for shard, split in enumerate(SPLITS):
        for image in scenes.images.shard(shard).to_pylist():
            if split == "labeled":
                continue
            image_rows.append(
                {k: image[k] for k in ("image_id", "height_px", "width_px")} | {"split": split}
            )
            for row in scenes.truth[image["image_id"]]:
                known = row["class_index"] if row["class_index"] == 0 else -1
                true_rows.append(row | {"class_index": known, "split": split})
                if split == "validation":
                    keep = ("image_id", "bbox_xyxy", "mask_rle", "height_px", "width_px")
                    predictions.append(
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
                "truth_images": memory_table("truth_images", [image_rows if truth else []]),
                "truth_instances": memory_table("truth_instances", [true_rows if truth else []]),
                "categories": CATEGORIES if truth else CATEGORIES[:1],
            }
        ),
        "propose": FakeArtifact({"proposals": memory_table("proposals", proposals)}),
        "crop": FakeArtifact({"crops": memory_table("crops", crops)}),
        "embed": FakeArtifact({"embeddings": memory_table("embeddings", embeddings)}),
        "count": FakeArtifact(
            {"class_count": {"num_classes": 3, "interval": [3, 4], "method": "given"}}
        ),
        "discover": FakeArtifact(
            {
                "assignments": memory_table("assignments", assignments),
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


def _corner_rle() -> str:
    from gcdis_ray.data.masks import encode_window

    return encode_window(np.ones((3, 3), bool), 0, 0, 64, 64)


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
        "jpeg": _png(70 * row["class_index"]),
        "mask_png": _png(255),
    }


def _assignment(number: int, known: int, cluster: int) -> dict[str, Any]:
    return {
        "crop_index": number,
        "class_index": known,
        "cluster_id": cluster,
        "topk_ids": [cluster],
        "topk_probabilities": [0.9],
        "temperature": 0.1,
        "headness": 0.0,
        "embedding": [1.0, 0.0],
    }


def _pseudo_label(row: dict[str, Any], number: int, cluster: int) -> dict[str, Any]:
    return {
        "crop_index": number,
        "image_id": row["image_id"],
        "source_id": number,
        "class_index": cluster,
        "probability": 0.9,
        "stability": 1.0,
        "reliability": 0.05 if cluster == 2 else 1.0,
    }


def _score(artifacts, predictions, **changes: Any) -> dict[str, Any]:
    table = memory_table("predictions", [predictions]).read()
    settings = Settings(**{**SETTINGS.__dict__, **changes})
    return Scorer(artifacts, table, settings, seed=0).metrics()


@pytest.mark.parametrize("source", ["train_gt", "detections"])
def test_a_perfect_run_scores_one_whatever_its_clusters_are_called(source: str) -> None:
    artifacts, predictions = _run()
    metrics = _score(artifacts, predictions, mapping_source=source)
    perfect = {"all": 1.0, "known": 1.0, "novel": 1.0}
    for name in ("accuracy", "accuracy_hungarian", "kmeans_accuracy", "kmeans_pixels_accuracy"):
        assert metrics["discovery"][name] == perfect, name
    assert metrics["discovery"]["nmi"] == pytest.approx(1)
    assert metrics["detection"]["mask_ap"] == pytest.approx(perfect)
    assert metrics["detection"]["box_ap"] == pytest.approx(perfect)
    mapping = metrics["detection"]["mapping"]
    assert mapping["class_to_category"] == {"0": 1, "1": 3, "2": 2}
    assert mapping["source"] == source
    assert metrics["class_count"]["estimate"] == metrics["class_count"]["truth"] == 3
    coverage = metrics["coverage"]
    assert coverage["crop_recall"] == coverage["proposal_recall"] == 1
    assert coverage["num_unlabeled_crops_matched"] == coverage["num_unlabeled_crops"] == 32
    assert [row["purity"] for row in metrics["clusters"]] == [1, 1, 1]
    assert {r["name"]: r["accuracy"] for r in metrics["per_class"]}["never"] is None


def test_mistakes_are_counted_by_hand() -> None:
    artifacts, predictions = _run(wrong_every=3)
    metrics = _score(artifacts, predictions)
    rows = artifacts["crop"].table("crops").read(["crop_index", "class_index", "image_id"])
    true = {}
    for image in rectangle_scenes(SPLITS, per_shard=8).truth.values():
        for n, row in enumerate(image):
            true[row["image_id"], n] = row["class_index"]
    right, total, seen = 0, 0, {}
    for crop in rows.to_pylist():
        if crop["class_index"] >= 0:
            continue
        place = seen.setdefault(crop["image_id"], 0)
        seen[crop["image_id"]] += 1
        named = 1 if crop["crop_index"] % 3 == 0 else true[crop["image_id"], place]
        right += named == true[crop["image_id"], place]
        total += 1
    assert metrics["discovery"]["accuracy"]["all"] == pytest.approx(right / total)
    assert metrics["discovery"]["accuracy"]["all"] < 1
    assert metrics["clusters"][2]["purity"] < 1
    low, high = metrics["reliability_bins"][0], metrics["reliability_bins"][-1]
    assert low["accuracy"] < high["accuracy"] == 1
    assert metrics["detection"]["mask_ap"]["all"] == pytest.approx(1)


def test_thirds_follow_the_true_objects_not_the_crops() -> None:
    artifacts, predictions = _run(wrong_every=3)
    metrics = _score(artifacts, predictions)
    classes = {row["name"]: row for row in metrics["per_class"]}
    assert classes["never"]["frequency"] is None
    ranked = sorted(
        (r for r in metrics["per_class"] if r["num_objects"]), key=lambda r: -r["num_objects"]
    )
    assert [row["frequency"] for row in ranked] == ["head", "mid", "tail"]
    found = metrics["discovery"]["accuracy_by_frequency"]
    assert found == {row["frequency"]: pytest.approx(row["accuracy"]) for row in ranked}
    assert len(set(found.values())) > 1
    weighted = sum(found[row["frequency"]] * row["num_crops"] for row in ranked)
    total = metrics["discovery"]["num_crops_scored"]
    assert weighted / total == pytest.approx(metrics["discovery"]["accuracy"]["all"])
    baseline = metrics["discovery"]["kmeans_accuracy_by_frequency"]
    assert baseline == {"head": 1, "mid": 1, "tail": 1}

    blank = {
        row["image_id"]: row["proposal_id"]
        for row in artifacts["propose"].table("proposals").read().to_pylist()
        if row["proposal_id"] >= 10_000
    }
    colour = ranked[0]["category_id"] - 1
    crops = artifacts["crop"].table("crops")
    rows = [crops.shard(i).to_pylist() for i in range(crops.num_shards)]
    shown = [r for r in rows[1] + rows[2] if r["jpeg"] == _png(70 * colour)]
    for row in shown[1:]:  # all crops but one of the most frequent class show nothing
        row["source_id"] = blank[row["image_id"]]
    artifacts["crop"] = FakeArtifact({"crops": memory_table("crops", rows)})
    lost = _score(artifacts, predictions)
    assert [r["frequency"] for r in lost["per_class"]] == [
        r["frequency"] for r in metrics["per_class"]
    ]
    assert {r["frequency"]: r["num_crops"] for r in lost["per_class"]}["head"] == 1
    assert lost["discovery"]["accuracy_by_frequency"]["head"] in (0, 1)


def test_trust_is_held_against_the_truth() -> None:
    artifacts, predictions = _run(wrong_every=3)
    metrics = _score(artifacts, predictions)
    right, total = (
        sum(f(b) for b in metrics["probability_bins"] if b["num_crops"])
        for f in (lambda b: b["num_crops"] * b["accuracy"], lambda b: b["num_crops"])
    )
    assert total == 32
    assert metrics["trust"]["accuracy"] == pytest.approx(right / total)
    assert metrics["trust"]["calibration_error"] == pytest.approx(abs(right / total - 0.9))
    assert metrics["trust"]["auroc"]["stability"] == 0.5  # all alike
    assert metrics["trust"]["auroc"]["reliability"] > 0.5  # low where labels are wrong
    assert len(metrics["stability_bins"]) == 1


def test_heat_counts_labeled_and_unlabeled_crops() -> None:
    artifacts, predictions = _run()
    table = artifacts["discover"].table("assignments")
    shards = [table.shard(i).to_pylist() for i in range(table.num_shards)]
    for row in (row for shard in shards for row in shard):
        row["temperature"] = 0.25 if row["cluster_id"] == 0 else 0.5
        row["headness"] = 0.125 if row["class_index"] == 0 else 0.0
    artifacts["discover"].members["assignments"] = memory_table("assignments", shards)
    red, green, _, never = _score(artifacts, predictions)["per_class"]
    num_labeled = sum(row["class_index"] == 0 for shard in shards for row in shard)
    assert num_labeled > 0
    assert red["num_training_crops"] == red["num_crops"] + num_labeled
    assert red["temperature"] == 0.25
    assert red["headness"] == pytest.approx(0.125 * num_labeled / red["num_training_crops"])
    assert (green["num_training_crops"], green["temperature"]) == (green["num_crops"], 0.5)
    assert (never["num_training_crops"], never["temperature"]) == (0, None)


def test_objects_without_a_crop_are_counted_and_left_out() -> None:
    artifacts, predictions = _run()
    crops = artifacts["crop"].table("crops")
    rows = [crops.shard(i).to_pylist() for i in range(crops.num_shards)]
    lost = next(row for row in rows[1] if row["class_index"] < 0)
    lost["source_id"] = next(
        row["proposal_id"]
        for row in artifacts["propose"].table("proposals").shard(1).to_pylist()
        if row["image_id"] == lost["image_id"] and row["proposal_id"] >= 10_000
    )
    artifacts["crop"] = FakeArtifact({"crops": memory_table("crops", rows)})
    metrics = _score(artifacts, predictions)
    assert metrics["coverage"]["num_objects_with_crop"] == 31
    assert metrics["coverage"]["num_objects_with_proposal"] == 32
    assert metrics["discovery"]["num_crops_scored"] == 31
    assert metrics["discovery"]["accuracy"]["all"] == 1


def test_without_ground_truth_numbers_are_null_and_say_why() -> None:
    artifacts, predictions = _run(truth=False)
    metrics = _score(artifacts, predictions)
    nothing = {"all": None, "known": None, "novel": None}
    for block, name in (
        ("discovery", "accuracy"),
        ("discovery", "kmeans_accuracy"),
        ("detection", "mask_ap"),
        ("detection", "box_ap"),
    ):
        assert metrics[block][name] == nothing
    thirds = {"head": None, "mid": None, "tail": None}
    assert metrics["discovery"]["accuracy_by_frequency"] == thirds
    assert metrics["probability_bins"] == metrics["stability_bins"] == []
    assert metrics["discovery"]["reason"] == "no ground truth for unlabeled images"
    assert metrics["detection"]["reason"] == "no ground truth for validation images"
    assert metrics["class_count"] == {
        "estimate": 3,
        "discovered": 3,
        "truth": None,
        "interval": [3, 4],
        "method": "given",
    }
    assert metrics["coverage"]["crop_recall"] is None
    assert metrics["clusters"][0]["purity"] is None
    assert metrics["clusters"][0]["size"] > 0


def test_without_crops_to_map_by_detections_are_used_and_named() -> None:
    artifacts, predictions = _run()
    truth = artifacts["ground_truth"]
    kept = [r for r in truth.table("truth_instances").read().to_pylist()
            if r["split"] == "validation"]  # fmt: skip
    members = truth.members | {"truth_instances": memory_table("truth_instances", [kept])}
    metrics = _score(artifacts | {"ground_truth": FakeArtifact(members)}, predictions)
    assert metrics["detection"]["mapping"]["source"] == "detections"
    assert "no ground truth" in metrics["detection"]["mapping"]["note"]
    assert metrics["detection"]["mask_ap"]["novel"] == pytest.approx(1)


def test_the_stage_predicts_on_validation_images_only(local_work) -> None:
    artifacts, _ = _run()
    config = evaluate.Config.model_validate({"kmeans_on_pixels": False, "min_score": 0.0})
    evaluate.run(artifacts, config, local_work)  # pyright: ignore[reportArgumentType]
    predictions = local_work.table("predictions")
    assert [shard.rows for shard in predictions.shards][:3] == [0, 0, 0]
    assert predictions.num_rows > 0
    metrics = _read_json(local_work, "metrics")
    assert metrics["discovery"]["accuracy"]["all"] == 1
    assert metrics["discovery"]["kmeans_pixels_accuracy"]["all"] is None
    assert 0 <= metrics["detection"]["mask_ap"]["all"] < 0.5  # an untrained segmenter


def _read_json(work, member: str) -> Any:
    import json

    return json.loads(work.table(member).opener.read_bytes(work.files[member][0]))
