"""Stage evaluate: the numbers of runs whose result is known in advance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from perfect_run import SPLITS, perfect_run, png, score
from scene_tables import FakeArtifact, memory_table, rectangle_scenes
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.stages import evaluate, predict
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.schemas import PLACED


@pytest.mark.parametrize("source", ["train_gt", "detections"])
def test_a_perfect_run_scores_one_whatever_its_clusters_are_called(source: str) -> None:
    artifacts, predictions = perfect_run()
    metrics = score(artifacts, predictions, mapping={"source": source})
    perfect = {"all": 1.0, "known": 1.0, "novel": 1.0}
    sortings = ("accuracy", "ss_kmeans_accuracy", "kmeans_named_accuracy", "kmeans_accuracy")
    shares = ("objects_with_crop", "found_and_sorted")
    for name in (*sortings, "accuracy_hungarian", "kmeans_pixels_accuracy", *shares):
        assert metrics["discovery"][name] == perfect, name
    assert metrics["discovery"]["placed_accuracy"]["all"] is None
    for name in ("mask_ar10", "mask_ar100", "box_ar10", "box_ar100"):
        assert metrics["proposals"][name] == perfect, name
    assert metrics["proposals"]["most_per_image"] == 3  # two objects, and nothing
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
    artifacts, predictions = perfect_run(wrong_every=3)
    metrics = score(artifacts, predictions)
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
    artifacts, predictions = perfect_run(wrong_every=3)
    metrics = score(artifacts, predictions)
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
    rows = _rows(artifacts["crop"].table("crops"))
    shown = [r for r in rows[1] + rows[2] if r["jpeg"] == png(70 * colour)]
    lost_crops = {row["crop_index"] for row in shown[1:]}  # but one of the most frequent class
    labels = _rows(artifacts["label"].table("pseudo_labels"))
    for row in (row for shard in labels for row in shard if row["crop_index"] in lost_crops):
        row["source_id"] = blank[row["image_id"]]  # shows nothing
    artifacts["label"] = FakeArtifact({"pseudo_labels": memory_table("pseudo_labels", labels)})
    lost = score(artifacts, predictions)
    assert [r["frequency"] for r in lost["per_class"]] == [
        r["frequency"] for r in metrics["per_class"]
    ]
    assert {r["frequency"]: r["num_crops"] for r in lost["per_class"]}["head"] == 1
    assert lost["discovery"]["accuracy_by_frequency"]["head"] in (0, 1)


def test_trust_is_held_against_the_truth() -> None:
    artifacts, predictions = perfect_run(wrong_every=3)
    metrics = score(artifacts, predictions)
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
    artifacts, predictions = perfect_run()
    shards = _rows(artifacts["discover"].table("assignments"))
    heat = [
        {
            "crop_index": row["crop_index"],
            "temperature": 0.25 if row["cluster_id"] == 0 else 0.5,
            "headness": 0.125 if row["class_index"] == 0 else 0.0,
        }
        for shard in shards
        for row in shard
    ]
    members = artifacts["discover"].members
    members["headness"] = memory_table("headness", [heat[::-1]])  # in whatever order
    red, green, _, never = score(artifacts, predictions)["per_class"]
    num_labeled = sum(row["class_index"] == 0 for shard in shards for row in shard)
    assert num_labeled > 0
    assert red["num_training_crops"] == red["num_crops"] + num_labeled
    assert red["temperature"] == 0.25
    assert red["headness"] == pytest.approx(0.125 * num_labeled / red["num_training_crops"])
    assert (green["num_training_crops"], green["temperature"]) == (green["num_crops"], 0.5)
    assert (never["num_training_crops"], never["temperature"]) == (0, None)


def test_objects_without_a_crop_are_counted_and_left_out() -> None:
    artifacts, predictions = perfect_run()
    rows = _rows(artifacts["label"].table("pseudo_labels"))
    lost = rows[1][0]
    lost["source_id"] = next(
        row["proposal_id"]
        for row in artifacts["propose"].table("proposals").shard(1).to_pylist()
        if row["image_id"] == lost["image_id"] and row["proposal_id"] >= 10_000
    )
    artifacts["label"] = FakeArtifact({"pseudo_labels": memory_table("pseudo_labels", rows)})
    metrics = score(artifacts, predictions)
    assert metrics["coverage"]["num_objects_with_crop"] == 31
    assert metrics["coverage"]["num_objects_with_proposal"] == 32
    discovery = metrics["discovery"]
    assert discovery["num_crops_scored"] == 31
    assert discovery["accuracy"]["all"] == 1
    assert discovery["objects_with_crop"]["all"] == discovery["found_and_sorted"]["all"] == 31 / 32
    assert metrics["proposals"]["mask_ar10"]["all"] == 1


def test_where_discovery_started_is_scored_beside_its_end(monkeypatch) -> None:
    monkeypatch.setitem(SCHEMAS, "placed", PLACED)
    artifacts, predictions = perfect_run(wrong_every=3)
    shards = _rows(artifacts["embed"].table("embeddings"))
    placed = [
        {"crop_index": row["crop_index"], "cluster_id": _start(row["embedding"])}
        for shard in shards
        for row in shard
    ]
    artifacts["discover"].members["placed"] = memory_table("placed", [placed[::-1]])
    metrics = score(artifacts, predictions)
    assert metrics["discovery"]["placed_accuracy"] == {"all": 1, "known": 1, "novel": 1}
    assert metrics["discovery"]["placed_accuracy_hungarian"]["all"] == 1
    assert metrics["discovery"]["accuracy"]["all"] < 1
    artifact: Any = FakeArtifact({"metrics": metrics})
    line = evaluate.warning(artifact)
    assert line is not None
    assert "1.000 placed (accuracy of 32 crops)" in line


def _start(embedding: list[float]) -> int:
    """A cluster for each class of the scenes; its angle in the plane is twice its number."""
    return int(np.argmin([abs(np.cos(2 * k) - embedding[0]) for k in range(3)]))


def test_without_ground_truth_numbers_are_null_and_say_why() -> None:
    artifacts, predictions = perfect_run(truth=False)
    metrics = score(artifacts, predictions)
    nothing = {"all": None, "known": None, "novel": None}
    for block, name in (
        ("discovery", "accuracy"),
        ("discovery", "kmeans_accuracy"),
        ("discovery", "found_and_sorted"),
        ("proposals", "mask_ar100"),
        ("detection", "mask_ap"),
        ("detection", "box_ap"),
    ):
        assert metrics[block][name] == nothing
    thirds = {"head": None, "mid": None, "tail": None}
    assert metrics["discovery"]["accuracy_by_frequency"] == thirds
    assert metrics["probability_bins"] == metrics["stability_bins"] == []
    for block in ("discovery", "proposals"):
        assert metrics[block]["reason"] == "no ground truth for unlabeled images"
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


def test_without_crops_to_map_by_half_of_the_validation_images_are_used_and_named() -> None:
    artifacts, predictions = perfect_run(seed=4)  # every class in both halves
    truth = artifacts["ground_truth"]
    rows = _rows(truth.table("truth_instances"))
    kept = [[row for row in shard if row["split"] == "validation"] for shard in rows]
    members = truth.members | {"truth_instances": memory_table("truth_instances", kept)}
    metrics = score(artifacts | {"ground_truth": FakeArtifact(members)}, predictions)
    assert metrics["detection"]["mapping"]["source"] == "split_val"
    assert metrics["detection"]["mapping"]["leak_free"]
    assert "no ground truth" in metrics["detection"]["mapping"]["note"]
    assert metrics["detection"]["mask_ap"]["novel"] == pytest.approx(1)


@pytest.mark.parametrize("truth", [True, False])
def test_a_recipe_without_labels_and_predictions_has_its_metrics_and_says_why(
    local_work, truth: bool
) -> None:
    artifacts, _ = perfect_run(truth=truth)
    del artifacts["label"]
    artifacts["discover"].members.pop("headness")
    config = evaluate.Config(kmeans_n_init=2, mapping={"source": "detections"})  # pyright: ignore[reportArgumentType]
    evaluate.run(inputs_of(evaluate, artifacts), config, local_work)
    metrics = _read_json(local_work, "metrics")
    assert metrics["discovery"]["accuracy"]["all"] == (1 if truth else None)
    assert metrics["discovery"]["num_crops_scored"] == (32 if truth else 0)
    detection = metrics["detection"]
    assert detection["reason"] == "the recipe predicts nothing"
    assert (
        detection["mask_ap"] == detection["box_ap"] == {"all": None, "known": None, "novel": None}
    )
    assert detection["mapping"]["source"] == "train_gt"
    assert "no predictions to map by" in detection["mapping"]["note"]
    if truth:
        assert detection["mapping"]["class_to_category"] == {"0": 1, "1": 3, "2": 2}
        assert metrics["coverage"]["num_unlabeled_crops"] == 32
        assert metrics["trust"]["accuracy"] == 1
        assert metrics["trust"]["calibration_error"] == pytest.approx(0.1)  # they say 0.9
        assert sum(b["num_crops"] for b in metrics["probability_bins"]) == 32
    assert not metrics.get("stability_bins")
    assert not metrics.get("reliability_bins")
    assert all(row.get("temperature") is None for row in metrics["per_class"])
    assert {row["size"] for row in metrics["clusters"]} != {0}
    assert evaluate.summary(FakeArtifact({"metrics": metrics}))  # pyright: ignore[reportArgumentType]


def test_the_stage_scores_what_predict_has_made(local_work) -> None:
    artifacts, _ = perfect_run()
    inputs = inputs_of(predict, artifacts)
    predict.run(inputs, predict.Config(min_score=0.0), local_work)
    predictions = local_work.table("predictions")
    assert [shard.rows for shard in predictions.shards][:3] == [
        0,
        0,
        0,
    ]  # of validation images only
    assert predictions.num_rows > 0
    limits = _read_json(local_work, "limits")
    assert limits == {"min_score": 0.0, "max_per_image": 300}
    artifacts["predict"] = FakeArtifact({"predictions": predictions, "limits": limits})
    config = evaluate.Config(kmeans_on_pixels=False)
    evaluate.run(inputs_of(evaluate, artifacts), config, local_work)
    metrics = _read_json(local_work, "metrics")
    assert metrics["discovery"]["accuracy"]["all"] == 1
    assert metrics["discovery"]["kmeans_pixels_accuracy"]["all"] is None
    assert 0 <= metrics["detection"]["mask_ap"]["all"] < 0.5  # an untrained segmenter


def _rows(table: Table) -> list[list[dict[str, Any]]]:
    return [shard.to_pylist() for shard in table.iter_shards()]


def _read_json(work, member: str) -> Any:
    return json.loads(work.opener.read_bytes(work.files[member][0]))


def _curated(artifacts: dict[str, Any], class_of_cluster: list[int]) -> dict[str, Any]:
    """The run with clusters turned into these classes, -1 for none."""
    became = lambda row: class_of_cluster[row["cluster_id"]]  # noqa: E731
    partition = [
        [{"crop_index": row["crop_index"], "cluster_id": became(row)} for row in shard]
        for shard in _rows(artifacts["discover"].table("assignments"))
    ]
    labels = [
        [row | {"cluster_id": became(row)} for row in shard if became(row) >= 0]
        for shard in _rows(artifacts["label"].table("pseudo_labels"))
    ]
    rows = artifacts["discover"].json("discovered_classes")[: 1 + max(class_of_cluster)]
    document = {
        "class_of_cluster": class_of_cluster,
        "rejected_crops": sum(row["cluster_id"] < 0 for shard in partition for row in shard),
    }
    made = {
        "partition": memory_table("partition", partition),
        "discovered_classes": rows,
        "curation": document,
    }
    return artifacts | {
        "curate": FakeArtifact(made),
        "label": FakeArtifact({"pseudo_labels": memory_table("pseudo_labels", labels)}),
    }


def test_classes_as_people_left_them_score_as_discovery_does() -> None:
    artifacts, predictions = perfect_run(wrong_every=3)
    plain = score(artifacts, predictions)
    assert score(_curated(artifacts, [0, 1, 2]), predictions) == plain


def test_crops_of_a_rejected_class_are_scored_as_not_sorted() -> None:
    artifacts, predictions = perfect_run()
    plain = score(artifacts, predictions)
    curated = _curated(artifacts, [0, 1, -1])
    metrics = score(curated, predictions)
    of_green = {row["name"]: row for row in plain["per_class"]}["green"]["num_crops"]
    discovery = metrics["discovery"]
    assert discovery["num_crops_rejected"] == of_green > 0
    assert "not sorted" in discovery["protocol"]["num_crops_rejected"]
    assert discovery["num_crops_scored"] == 32
    assert discovery["num_clusters_used"] == 2
    for name in ("accuracy", "accuracy_hungarian", "found_and_sorted"):
        assert discovery[name]["all"] == pytest.approx(1 - of_green / 32), name
        assert discovery[name]["known"] == 1, name
    assert discovery["objects_with_crop"]["all"] == 1
    assert metrics["coverage"]["num_unlabeled_crops"] == 32
    assert [row["size"] for row in metrics["clusters"]] == [
        row["size"] for row in plain["clusters"][:2]
    ]
    assert [row["mean_reliability"] for row in metrics["clusters"]] == [1, 1]
    assert sum(b["num_crops"] for b in metrics["probability_bins"]) == 32 - of_green
    assert metrics["detection"]["mapping"]["class_to_category"] == {"0": 1, "1": 3}
    assert metrics["class_count"]["discovered"] == 2
    del curated["label"]  # a recipe that judges no label
    alone = score(curated, predictions)
    assert alone["discovery"] == discovery
    assert [r["size"] for r in alone["clusters"]] == [r["size"] for r in metrics["clusters"]]


def test_merged_classes_are_one_output() -> None:
    artifacts, predictions = perfect_run()
    metrics = score(_curated(artifacts, [0, 1, 1]), predictions)
    assert 0 < metrics["discovery"]["accuracy"]["novel"] < 1
    assert metrics["discovery"]["accuracy"]["known"] == 1
    assert "num_crops_rejected" not in metrics["discovery"]
