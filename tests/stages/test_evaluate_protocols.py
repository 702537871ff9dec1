"""Stage evaluate: what each protocol makes of the same detections, by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from perfect_run import CATEGORIES, SPLITS, perfect_run, score
from scene_tables import FakeArtifact, memory_table

from gcdis_ray.store.artifacts import Table

Shards = list[list[dict[str, Any]]]
VALIDATION = SPLITS.index("validation")


def rows_of(table: Table) -> Shards:
    return [shard.to_pylist() for shard in table.iter_shards()]


def with_truth(
    artifacts: dict[str, Any],
    member: str,
    change: Callable[[int, dict[str, Any]], dict[str, Any]],
    categories: Sequence[dict[str, Any]] = CATEGORIES,
) -> dict[str, Any]:
    """Artifacts with every row of a table of the ground truth changed, by its place in a shard."""
    truth = artifacts["ground_truth"]
    rows = [
        [change(n, row) for n, row in enumerate(shard)] for shard in rows_of(truth.table(member))
    ]
    members = truth.members | {member: memory_table(member, rows), "categories": categories}
    return artifacts | {"ground_truth": FakeArtifact(members)}


# ------------------------------------------------------------ drop


def with_junk(artifacts: dict[str, Any], predictions: Shards) -> tuple[dict[str, Any], Shards]:
    """Two better detections in every image, of an output that no crop is in."""
    outputs = artifacts["discover"].json("discovered_classes")
    junk = {"class_index": 3, "name": "junk", "known": False, "category_id": None}
    members = artifacts["discover"].members | {"discovered_classes": [*outputs, junk]}
    more = [
        [row for one in shard for row in (one, one | {"class_index": 3, "score": 0.95})]
        for shard in predictions
    ]
    return artifacts | {"discover": FakeArtifact(members)}, more


@pytest.mark.parametrize(
    ("drop", "best", "ap", "unmapped"),
    [
        ("after_topk", 2, 0.0, 16),  # both places of an image go to junk
        ("before_topk", 2, 1.0, 16),
        ("after_topk", 4, 1.0, 16),
        ("before_topk", 4, 1.0, 16),
    ],
)
def test_outputs_without_a_class_use_up_the_budget_or_make_room(
    drop: str, best: int, ap: float, unmapped: int
) -> None:
    artifacts, predictions = with_junk(*perfect_run())
    metrics = score(artifacts, predictions, max_per_image=best, mapping={"drop": drop})
    found = metrics["detection"]
    assert found["mask_ap"] == pytest.approx({"all": ap, "known": ap, "novel": ap})
    assert found["scores"]["unmapped_predictions"] == unmapped
    assert found["mapping"]["drop"] == drop
    assert f"cut to the {best} best" in found["mapping"]["protocol"]


# ------------------------------------------------------------ scope and source


def test_all_gives_known_outputs_new_names_novel_only_does_not() -> None:
    artifacts, predictions = perfect_run()
    swapped = [
        [row | {"class_index": {0: 1, 1: 0, 2: 2}[row["class_index"]]} for row in shard]
        for shard in predictions
    ]  # the segmenter calls red what is blue, and blue what is red
    free = score(artifacts, swapped, mapping={"source": "detections", "scope": "all"})
    assert free["detection"]["mapping"]["class_to_category"] == {"0": 3, "1": 1, "2": 2}
    assert free["detection"]["mask_ap"] == pytest.approx({"all": 1, "known": 1, "novel": 1})
    fixed = score(artifacts, swapped, mapping={"source": "detections", "scope": "novel_only"})
    # output 1 meets red only, which is taken, so it stands for nothing
    assert fixed["detection"]["mapping"]["class_to_category"] == {"0": 1, "2": 2}
    assert fixed["detection"]["mask_ap"] == pytest.approx({"all": 1 / 3, "known": 0, "novel": 0.5})


def test_one_half_of_validation_names_the_outputs_and_the_other_is_scored() -> None:
    artifacts, predictions = perfect_run(seed=6)  # both halves show all three classes
    ids = {row["image_id"] for row in predictions[VALIDATION]}
    mapped_by = {i for i in ids if hashlib.sha256(str(i).encode()).digest()[0] < 128}
    assert 0 < len(mapped_by) < len(ids)
    turned = [
        [
            row
            if row["image_id"] in mapped_by
            else row | {"class_index": {0: 0, 1: 2, 2: 1}[row["class_index"]]}
            for row in shard
        ]
        for shard in predictions
    ]  # novel outputs are the other way round in the half that is scored
    metrics = score(artifacts, turned, mapping={"source": "split_val"})["detection"]
    assert metrics["mapping"]["class_to_category"] == {"0": 1, "1": 3, "2": 2}
    assert metrics["mapping"]["leak_free"] is True
    assert metrics["scores"]["images"] == len(ids - mapped_by)
    assert (metrics["mask_ap"]["known"], metrics["mask_ap"]["novel"]) == pytest.approx((1, 0))
    again = score(artifacts, predictions, mapping={"source": "split_val"})["detection"]
    assert again["mask_ap"]["novel"] == pytest.approx(1)


# ------------------------------------------------------------ rules


GROUPED = [
    row | {"frequency": group} for row, group in zip(CATEGORIES, ("f", "c", "r", "r"), strict=True)
]


def _false_green(predictions: Shards) -> tuple[int, Shards]:
    """A detection of green, better than all others, in an image without green; and that image."""
    rows = predictions[VALIDATION]
    green = {row["image_id"] for row in rows if row["class_index"] == 2}
    wrong = next(row for row in rows if row["image_id"] not in green)
    more = [[] for _ in SPLITS]
    more[VALIDATION] = [*rows, wrong | {"class_index": 2, "score": 0.99}]
    return wrong["image_id"], more


def test_what_an_image_was_not_searched_for_counts_by_coco_rules_only() -> None:
    artifacts, predictions = perfect_run()
    image_id, more = _false_green(predictions)
    coco = score(artifacts, more)["detection"]
    assert coco["rules"] == "coco"
    assert coco["ap_by_frequency"] == {"mask": None, "box": None}
    assert coco["mask_ap"]["novel"] < 1

    def listed(absent: list[int]) -> dict[str, Any]:
        def lists(n: int, row: dict[str, Any]) -> dict[str, Any]:
            mine = absent if row["image_id"] == image_id else []
            return row | {"absent_category_ids": mine, "not_exhaustive_category_ids": []}

        with_lists = with_truth(artifacts, "truth_images", lists, GROUPED)
        return score(with_lists, more)["detection"]

    lvis = listed(absent=[])
    assert lvis["rules"] == "lvis"
    assert "300 best" in lvis["mapping"]["protocol"]
    assert lvis["protocol"]["mask"].startswith("LVIS")
    assert lvis["mask_ap"] == pytest.approx({"all": 1, "known": 1, "novel": 1})
    searched = listed(absent=[2])
    green = coco["mask_ap"]["novel"] * 2 - 1  # blue is perfect
    assert searched["ap_by_frequency"]["mask"] == pytest.approx({"r": 1, "c": green, "f": 1})
    assert searched["mask_ap"] == pytest.approx(coco["mask_ap"])


def test_all_is_known_and_novel_by_their_classes() -> None:
    artifacts, predictions = perfect_run()
    kept = [[row for n, row in enumerate(shard) if n % 5] for shard in predictions]
    metrics = score(artifacts, kept)["detection"]
    for kind in ("mask", "box"):
        ap, share = metrics[f"{kind}_ap"], metrics["known_weight"][kind]
        assert ap["known"] != ap["novel"]
        assert metrics["counted_classes"][kind] == {"all": 3, "known": 1, "novel": 2}
        assert share == pytest.approx(1 / 3)
        assert ap["all"] == pytest.approx(
            share * ap["known"] + (1 - share) * ap["novel"], abs=1e-12
        )


# ------------------------------------------------------------ boxes


@pytest.mark.parametrize("every", [1, 2])
def test_objects_without_masks_are_matched_by_their_boxes(every: int) -> None:
    artifacts, predictions = perfect_run()

    def boxes(n: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"mask_rle": None if n % every == 0 else row["mask_rle"]}

    bare = with_truth(artifacts, "truth_instances", boxes)
    for source in ("train_gt", "detections"):
        metrics = score(bare, predictions, mapping={"source": source})
        assert metrics["discovery"]["accuracy"]["all"] == 1
        assert metrics["detection"]["box_ap"]["all"] == pytest.approx(1)
        if every == 1:
            assert metrics["detection"]["mask_ap"]["all"] is None
            assert "no mask" in metrics["detection"]["protocol"]["mask"]


# ------------------------------------------------------------ shards


def _in_shards(artifacts: dict[str, Any], order: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Artifacts whose tables have the shards of ``order``: numbers of those that each joins."""
    changed = dict(artifacts)
    for stage, artifact in artifacts.items():
        members = dict(artifact.members)
        for name, member in members.items():
            if isinstance(member, Table) and name != "headness":  # one shard, of all crops
                members[name] = memory_table(name, _join(rows_of(member), order))
        changed[stage] = FakeArtifact(members)
    return changed


def _join(shards: Shards, order: Sequence[Sequence[int]]) -> Shards:
    return [[row for n in part for row in shards[n]] for part in order]


@pytest.mark.parametrize("source", ["train_gt", "split_val", "detections"])
def test_shards_and_their_order_change_no_number(source: str) -> None:
    artifacts, predictions = perfect_run(wrong_every=3)
    for n, row in enumerate(predictions[VALIDATION]):
        row["score"] = 0.3 + (n * 37 % 11) / 20
        row["class_index"] = 2 if n % 4 == 0 else row["class_index"]
    config = {"mapping": {"source": source}}
    want = score(artifacts, predictions, **config)
    assert 0 < want["detection"]["mask_ap"]["all"] < 1
    for order in ([[0, 1, 2, 3]], [[3], [], [1], [2, 0]]):
        parts = _in_shards(artifacts, order)
        assert score(parts, _join(predictions, order), **config) == want
