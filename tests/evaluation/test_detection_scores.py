"""Average precision over shards: any split gives the numbers of one piece, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_scores import evaluate_tables
from tables import SCHEMAS

from gcdis_ray.evaluation.detection_curves import (
    AccumulateShard,
    accumulate,
    class_groups,
    gather,
    matches_of_classes,
    score_shards,
)
from gcdis_ray.evaluation.detection_matches import MatchShard
from gcdis_ray.evaluation.tables import OBJECT_COUNTS
from gcdis_ray.run.work import StageWork
from gcdis_ray.store.artifacts import FileRecord, Table
from gcdis_ray.store.schemas import PREDICTIONS, TRUTH_IMAGES, TRUTH_INSTANCES, check_schema

CATEGORIES = [
    {"category_id": 3 * n + 1, "name": f"c{n}", "known": n % 3 == 0, "frequency": "rcf"[n % 3]}
    for n in range(6)
]
TO_CATEGORY = {n + 10: 3 * n + 1 for n in range(6)}
SIZE = (40, 60)


def _rle(box: tuple[int, int, int, int]) -> str:
    from gcdis_ray.masks import coco_rle

    x0, y0, x1, y1 = box
    return coco_rle.encode_window(np.ones((y1 - y0, x1 - x0)), x0, y0, *SIZE)


def scene(seed: int, images: int = 12) -> dict[str, pa.Table]:
    """Truth and predictions with ties in score, unmapped classes and images without either."""
    rng = np.random.default_rng(seed)
    truth, found = [], []

    def box() -> tuple[int, int, int, int]:
        x0, y0 = int(rng.integers(0, 40)), int(rng.integers(0, 20))
        return x0, y0, x0 + int(rng.integers(3, 20)), y0 + int(rng.integers(3, 20))

    def row(image_id: int, xyxy: tuple[int, int, int, int]) -> dict[str, Any]:
        return {"image_id": image_id, "bbox_xyxy": xyxy, "mask_rle": _rle(xyxy),
                "height_px": SIZE[0], "width_px": SIZE[1]}  # fmt: skip

    for image_id in range(images):
        for _ in range(rng.integers(0, 8)):
            xyxy, n = box(), int(rng.integers(0, 6))
            area = float((xyxy[2] - xyxy[0]) * (xyxy[3] - xyxy[1]))
            truth.append(
                row(image_id, xyxy)
                | {"instance_id": len(truth), "category_id": 3 * n + 1, "class_index": -1,
                   "area_px": area, "iscrowd": bool(rng.random() < 0.1), "split": "validation"}
            )  # fmt: skip
            for _ in range(rng.integers(0, 4)):
                shift = int(rng.integers(-2, 3))
                moved = (max(0, xyxy[0] + shift), *xyxy[1:])
                found.append(
                    row(image_id, moved)
                    | {"class_index": int(rng.choice([n + 10, n + 10, 10, 99])),
                       "score": float(rng.integers(0, 5)) / 5}
                )  # fmt: skip
    lists = [
        {
            "image_id": n,
            "split": "validation",
            "height_px": SIZE[0],
            "width_px": SIZE[1],
            "absent_category_ids": rng.choice([1, 4, 7], 1).tolist(),
            "not_exhaustive_category_ids": rng.choice([10, 13], 1).tolist(),
        }
        for n in range(images)
    ]
    return {
        "predictions": pa.Table.from_pylist(found, PREDICTIONS),
        "truth_images": pa.Table.from_pylist(lists),
        "truth_instances": pa.Table.from_pylist(truth, TRUTH_INSTANCES),
    }


class _Memory:
    def __init__(self, tables: list[pa.Table]) -> None:
        self.tables = tables

    def read_table(self, record: FileRecord, columns: Any) -> pa.Table:
        return self.tables[int(record.path)]


def _table(name: str, parts: list[pa.Table]) -> Table:
    checked = [check_schema(name, part, SCHEMAS[name]) for part in parts]
    records = tuple(FileRecord(str(n), 0, "", len(p)) for n, p in enumerate(checked))
    return Table(name, records, _Memory(checked))  # type: ignore[arg-type]


def score(
    tables: dict[str, pa.Table], splits: list[list[int]], groups: int, **task: Any
) -> dict[str, Any]:
    match = MatchShard([c["category_id"] for c in CATEGORIES], TO_CATEGORY, **task).open("cpu")
    found: dict[str, list[pa.Table]] = {}
    for index, ids in enumerate(splits):
        shard = [
            table.filter(pa.array(np.isin(table["image_id"].to_numpy(), ids)))
            for table in tables.values()
        ]
        for name, table in match(index, *shard).items():
            found.setdefault(name, []).append(table)
    handles = {name: _table(name, parts) for name, parts in found.items()}
    rules = task["rules"]
    accumulate = AccumulateShard(handles["matches"], handles["object_counts"], rules).open("cpu")
    ranges = class_groups(np.ones(6, dtype=np.int64), most_classes=-(-6 // groups))
    curves = [accumulate(n, **group)["curves"] for n, group in enumerate(ranges)]
    return score_shards(curves, handles["match_totals"].iter_shards(), CATEGORIES, rules)


@pytest.mark.parametrize("rules", ["coco", "lvis"])
@pytest.mark.parametrize("seed", range(5))
def test_any_split_gives_the_same_numbers(seed: int, rules: str) -> None:
    tables = scene(seed)
    whole = score(tables, [list(range(12))], 1, rules=rules, max_per_image=9)
    assert whole["mask"]["AP"] > 0
    ids = np.random.default_rng(seed).permutation(12)
    for cuts, groups in (([5], 2), ([1, 2, 9], 6), ([0, 4, 12], 4)):
        splits = [part.tolist() for part in np.split(ids, cuts)]
        assert score(tables, splits, groups, rules=rules, max_per_image=9) == whole
    if rules == "coco":
        free = score(tables, [list(range(12))], 3, rules=rules)
        assert free == evaluate_tables(
            range(12), tables["truth_instances"], tables["predictions"], CATEGORIES, TO_CATEGORY
        )


@pytest.mark.parametrize("rules", ["coco", "lvis"])
@pytest.mark.parametrize("seed", range(8))
def test_all_is_known_and_novel_weighted(seed: int, rules: str) -> None:
    found = score(scene(seed, 4), [[0, 1, 2, 3]], 1, rules=rules)
    for kind in ("mask", "box"):
        numbers = found[kind]
        w, parts = numbers["known_weight"], (numbers["known"], numbers["novel"])
        assert sum(part["classes"] for part in parts) == numbers["classes"]
        for name in ("AP", "AP50"):
            known, novel = (part[name] or 0.0 for part in parts)
            assert numbers[name] == pytest.approx(w * known + (1 - w) * novel, abs=1e-12)


def test_unmapped_predictions_leave_before_or_after_the_limit() -> None:
    tables = scene(3)
    before, after = (
        score(tables, [list(range(12))], 1, rules="coco", max_per_image=3, drop=drop)
        for drop in ("before_topk", "after_topk")
    )
    mapped = pa.compute.not_equal(tables["predictions"]["class_index"], 99)  # type: ignore[attr-defined]
    without = tables | {"predictions": tables["predictions"].filter(mapped)}
    clean = score(without, [list(range(12))], 1, rules="coco", max_per_image=3)
    assert before["mask"] == clean["mask"]
    assert after["counts"]["detections"] < before["counts"]["detections"]
    assert before["counts"]["unmapped_predictions"] == after["counts"]["unmapped_predictions"] > 0


def test_objects_without_masks_leave_box_ap_alone() -> None:
    tables = scene(1)
    objects = tables["truth_instances"]
    holes = pa.array([None, *objects["mask_rle"].to_pylist()[1:]], pa.string())
    column = objects.column_names.index("mask_rle")
    holed = tables | {"truth_instances": objects.set_column(column, "mask_rle", holes)}
    found = score(holed, [list(range(6)), list(range(6, 12))], 2, rules="coco")
    whole = score(tables, [list(range(12))], 2, rules="coco")
    assert found["mask"] is None
    assert f"1 of {len(objects)} ground-truth objects have no mask" in found["protocol"]["mask"]
    assert found["box"] == whole["box"]


def test_a_shard_can_be_restricted_and_empty() -> None:
    tables = scene(2)
    match = MatchShard([c["category_id"] for c in CATEGORIES], TO_CATEGORY, "lvis").open("cpu")
    part = match(0, *tables.values(), image_ids=[1, 2])
    assert set(part["matches"]["image_id"].to_pylist()) <= {1, 2}
    assert part["match_totals"]["images"].to_pylist() == [2]
    nothing = match(0, *tables.values(), image_ids=[])
    assert [len(check_schema(n, table, SCHEMAS[n])) for n, table in nothing.items()] == [0, 0, 1]


def test_runs_as_steps_of_a_stage(local_work: StageWork) -> None:
    tables = scene(4)
    inputs = []
    for name in ("predictions", "truth_instances"):
        inputs.append(local_work.write_table(name, tables[name]))
    images = tables["truth_images"].select(TRUTH_IMAGES.names)
    inputs.insert(1, local_work.write_table("truth_images", images))
    ids = [c["category_id"] for c in CATEGORIES]
    found = local_work.map_shards(
        MatchShard(ids, TO_CATEGORY, "coco"), inputs,
        gives=("matches", "object_counts", "match_totals"),
    )  # fmt: skip
    tables_of_shards = found["matches"], found["object_counts"]
    curves = accumulate(*tables_of_shards, len(CATEGORIES), "coco", local_work)
    scores = score_shards(
        curves.iter_shards(), found["match_totals"].iter_shards(), CATEGORIES, "coco"
    )
    assert scores == score(tables, [list(range(12))], 1, rules="coco")


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 6), st.integers(1, 60))
def test_groups_are_neighbours_and_no_larger_than_they_may(
    matches: list[int], most_classes: int, most_matches: int
) -> None:
    groups = class_groups(np.array(matches), most_classes, most_matches)
    ranges = [range(group["first_class"], group["end_class"]) for group in groups]
    assert [column for group in ranges for column in group] == list(range(len(matches)))
    for group in ranges:
        assert 1 <= len(group) <= most_classes
        assert len(group) == 1 or sum(matches[column] for column in group) <= most_matches


def test_gathered_rows_are_the_same_in_fewer_shards(
    local_work: StageWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcdis_ray.evaluation.detection_curves._ROWS_AT_ONCE", 7)
    rows = [{"class_column": n % 3, "kind": "box", "num_objects": [n, 0, 0, n]} for n in range(17)]
    schema = OBJECT_COUNTS
    shards = [pa.Table.from_pylist(rows[n : n + 2], schema) for n in range(0, 17, 2)]
    shards.insert(3, OBJECT_COUNTS.empty_table())
    table = gather(_table("object_counts", shards), OBJECT_COUNTS, local_work)
    assert table.num_shards == 3
    assert table.read().to_pylist() == rows
    assert matches_of_classes(table, 5).tolist() == [6, 6, 5, 0, 0]
    none = gather(_table("object_counts", []), OBJECT_COUNTS, local_work)
    assert (none.num_shards, none.num_rows) == (1, 0)
