"""Result files whose category ids are names of clusters: by hand, and against a run's tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask
from tables import SCHEMAS

from gcdis_ray.cli import main
from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.cluster_mapping import CountDetections, match_outputs
from gcdis_ray.evaluation.mapped_files import evaluate_mapped_files
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import in_mapping_half
from gcdis_ray.metrics.detection_columns import RULES, Drop, detection_columns, truth_columns
from gcdis_ray.metrics.files.coco_files import Category
from gcdis_ray.metrics.files.file_scores import evaluate, evaluate_files

SIDE = 64
IDS = (1, 2, 3, 4)  # classes; 1 and 2 are known
KNOWN = ("1", "2")
IMAGES = tuple(range(10, 30))


def _rle(box: list[int]) -> dict[str, Any]:
    pixels = np.zeros((SIDE, SIDE), np.uint8, order="F")
    x, y, width, height = box
    pixels[y : y + height, x : x + width] = 1
    rle = coco_mask.encode(pixels)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def _scene(
    seed: int = 0, lvis: bool = False, masks: bool = True
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Four objects an image, found with jitter; some detections are of a wrong class or place."""
    rng = np.random.default_rng(seed)
    images: list[dict[str, Any]] = [{"id": i, "height": SIDE, "width": SIDE} for i in IMAGES]
    annotations, results = [], []
    for image in images:
        for place in range(4):
            class_ = int(rng.choice(IDS))
            box = [32 * (place % 2) + 4, 32 * (place // 2) + 4, 20, 20]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": class_,
                    "bbox": box,
                    "area": 400,
                    "iscrowd": 0,
                }
                | ({"segmentation": _rle(box)} if masks else {})
            )
            said = class_ if rng.random() < 0.8 else int(rng.choice(IDS))
            moved = [box[0] + int(rng.integers(-4, 5)), box[1] + int(rng.integers(-4, 5)), 20, 20]
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": said,
                    "bbox": moved,
                    "score": float(rng.permutation(1000)[0]) / 1000,
                }
                | ({"segmentation": _rle(moved)} if masks else {})
            )
        if lvis:
            image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": []}
    categories = [{"id": i, "name": f"c{i}", "frequency": "f"} for i in IDS]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def _files(folder: Path, truth: Any, results: Any, indent: int | None = None) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "results.json"
    for path, value in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(value, indent=indent))
    return paths


def _renamed(results: list[dict[str, Any]], names: dict[int, int]) -> list[dict[str, Any]]:
    return [
        row | {"category_id": names.get(row["category_id"], row["category_id"])} for row in results
    ]


def _rule(
    source: str = "detections", scope: str = "all", drop: str = "after_topk"
) -> MappingConfig:
    return MappingConfig.model_validate({"source": source, "scope": scope, "drop": drop})


@pytest.mark.parametrize("lvis", [False, True])
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("indent", [None, 1])
def test_cluster_ids_are_scored_as_their_classes(
    tmp_path: Path, lvis: bool, masks: bool, indent: int | None
):
    truth, results = _scene(lvis=lvis, masks=masks)
    want = evaluate_files(*_files(tmp_path, truth, results), list(KNOWN))
    names = {1: 900, 2: 1, 3: 2, 4: 77}  # other ids, and ids of other classes
    paths = _files(tmp_path, truth, _renamed(results, names), indent)
    found = evaluate_mapped_files(*paths, _rule(), KNOWN)
    mapping = found.pop("mapping")
    assert mapping["class_to_category"] == {"1": 2, "2": 3, "77": 4, "900": 1}
    assert found == want
    assert not mapping["leak_free"]
    assert "IoU >= 0.5" in mapping["protocol"]


def test_known_ids_stand_for_themselves(tmp_path: Path):
    truth, results = _scene()
    want = evaluate_files(*_files(tmp_path, truth, results), list(KNOWN))
    novel = _renamed(results, {3: 4, 4: 3})  # ids of novel classes are names of clusters, too
    found = evaluate_mapped_files(*_files(tmp_path, truth, novel), _rule(scope="novel_only"), KNOWN)
    assert found["mapping"]["class_to_category"] == {"1": 1, "2": 2, "3": 4, "4": 3}
    assert found["mask"] == want["mask"]
    swapped = _files(tmp_path, truth, _renamed(results, {1: 2, 2: 1}))
    kept = evaluate_mapped_files(*swapped, _rule(scope="novel_only"), KNOWN)
    assert kept["mapping"]["class_to_category"] == {str(i): i for i in IDS}
    assert kept["mask"] == evaluate_files(*swapped, list(KNOWN))["mask"]
    assert evaluate_mapped_files(*swapped, _rule(), KNOWN)["mask"] == want["mask"]


def test_split_val_scores_the_other_half_only(tmp_path: Path):
    truth, results = _scene()
    half = in_mapping_half(IMAGES)
    others = [i for i, mine in zip(IMAGES, half, strict=True) if not mine]
    want = evaluate_files(*_files(tmp_path, truth, results), None, others)
    names = {i: 100 + i for i in IDS}
    # what the scored half would say is another map
    wrong = {1: 102, 2: 103, 3: 104, 4: 101}
    mixed = [
        row | {"category_id": (wrong if row["image_id"] in others else names)[row["category_id"]]}
        for row in results
    ]
    told = evaluate_mapped_files(*_files(tmp_path, truth, mixed), _rule("split_val"))
    assert told["mapping"]["class_to_category"] == {"101": 1, "102": 2, "103": 3, "104": 4}
    assert told["mapping"]["leak_free"]
    assert told["counts"]["images"] == len(others)
    right = evaluate_mapped_files(
        *_files(tmp_path, truth, _renamed(results, names)), _rule("split_val")
    )
    assert right["mask"] == want["mask"]
    assert told["mask"]["AP"] < right["mask"]["AP"]


def test_a_half_without_images_is_named(tmp_path: Path):
    paths = _files(tmp_path, *_scene())
    for mine, word in ((True, "score"), (False, "map by")):
        ids = [i for i, m in zip(IMAGES, in_mapping_half(IMAGES), strict=True) if m == mine]
        with pytest.raises(DataError, match=f"no image to {word}"):
            evaluate_mapped_files(*paths, _rule("split_val"), None, ids)


def test_ids_of_nothing_use_up_the_best_or_do_not(tmp_path: Path):
    """One object; a better detection of an output that meets no object stands before the match."""
    truth, _ = _scene()
    truth |= {"images": truth["images"][:1], "annotations": truth["annotations"][:1]}
    image, box = truth["images"][0]["id"], truth["annotations"][0]["bbox"]
    results = [
        {"image_id": image, "category_id": 70, "bbox": [50, 50, 4, 4], "score": 0.9},
        {"image_id": image, "category_id": 80, "bbox": box, "score": 0.8},
        {"image_id": image, "category_id": 80, "bbox": [50, 2, 4, 4], "score": 0.7},
    ]
    paths = _files(tmp_path, truth, results)
    for drop, limit, kept in [
        ("after_topk", None, 2),
        ("before_topk", None, 2),
        ("after_topk", 2, 1),
        ("before_topk", 2, 2),
    ]:
        found = evaluate_mapped_files(*paths, _rule(drop=drop), max_per_image=limit)
        assert found["counts"]["detections"] == kept
        assert found["box"]["AP"] == pytest.approx(1.0)
        assert len(found["mapping"]["class_to_category"]) == 1
    # nothing is matched within the best one, so nothing stands for anything
    for drop in ("after_topk", "before_topk"):
        found = evaluate_mapped_files(*paths, _rule(drop=drop), max_per_image=1)
        assert (found["mapping"]["class_to_category"], found["box"]["AP"]) == ({}, 0.0)


def test_masks_count_where_both_have_one(tmp_path: Path):
    """Boxes agree, masks do not: no match. Without the object's mask the boxes count."""
    truth, _ = _scene()
    truth |= {"images": truth["images"][:1], "annotations": truth["annotations"][:1]}
    annotation = truth["annotations"][0]
    x, y, width, height = annotation["bbox"]
    annotation["segmentation"] = _rle([x, y, width, height // 4])
    row = {"image_id": annotation["image_id"], "category_id": 9, "score": 1.0}
    row |= {"bbox": annotation["bbox"], "segmentation": _rle([x, y + 10, width, height // 4])}
    found = evaluate_mapped_files(*_files(tmp_path, truth, [row]), _rule())
    assert found["mapping"]["class_to_category"] == {}
    del annotation["segmentation"]
    found = evaluate_mapped_files(*_files(tmp_path, truth, [row]), _rule())
    assert found["mapping"]["class_to_category"] == {"9": annotation["category_id"]}
    # a detection without a box has that of its mask, a quarter of the object's
    found = evaluate_mapped_files(
        *_files(tmp_path, truth, [{k: v for k, v in row.items() if k != "bbox"}]), _rule()
    )
    assert found["mapping"]["class_to_category"] == {}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scope", ["all", "novel_only"])
@pytest.mark.parametrize("drop", ["before_topk", "after_topk"])
def test_the_numbers_are_those_of_a_run(tmp_path: Path, seed: int, scope: str, drop: Drop):
    truth, results = _scene(seed)
    results = _renamed(results, {3: 7, 4: 8})
    for row in results[::5]:
        row["category_id"] = 9  # a fifth output, for which no class is left
    tables = _tables(truth, results)
    listed = [{"category_id": i, "name": f"c{i}", "known": str(i) in KNOWN} for i in IDS]
    classes = ClassColumns(listed, {1: 0, 2: 1})
    counts = CountDetections(0.5, 3).open("cpu")(0, tables[1], tables[0])["cluster_counts"]
    rule = _rule(scope=scope, drop=drop)
    columns = match_outputs([counts], classes, 10, rule.scope)
    class_to_category = {output: IDS[column] for output, column in columns.items()}
    found = evaluate_mapped_files(*_files(tmp_path, truth, results), rule, KNOWN, max_per_image=3)
    assert found["mapping"]["class_to_category"] == {
        str(k): v for k, v in sorted(class_to_category.items())
    }
    images = pa.table({"image_id": IMAGES})
    columns_of_truth = truth_columns(images, tables[0], IDS, RULES["coco"])
    kept, unmapped = detection_columns(
        columns_of_truth, tables[1], IDS, class_to_category, 3, rule.drop
    )
    assert unmapped
    categories = [Category(i, f"c{i}") for i in IDS]
    want = evaluate(columns_of_truth, kept, categories, [1, 2])
    assert (found["mask"], found["box"]) == (want["mask"], want["box"])


def _tables(truth: dict[str, Any], results: list[dict[str, Any]]) -> tuple[pa.Table, pa.Table]:
    def rows(found: list[dict[str, Any]], name: str) -> pa.Table:
        listed = []
        for n, row in enumerate(found):
            x, y, width, height = row["bbox"]
            values = row | {
                "instance_id": n,
                "prediction_id": n,
                "split": "validation",
                "mask_rle": row["segmentation"]["counts"],
                "bbox_xyxy": [x, y, x + width, y + height],
                "height_px": SIDE,
                "width_px": SIDE,
                "area_px": 400.0,
                "class_index": row["category_id"],
                "iscrowd": False,
            }
            listed.append({field: values.get(field) for field in SCHEMAS[name].names})
        return pa.Table.from_pylist(listed, schema=SCHEMAS[name])

    return rows(truth["annotations"], "truth_instances"), rows(results, "predictions")


def test_what_cannot_be_mapped_is_named(tmp_path: Path):
    paths = _files(tmp_path, *_scene())
    for source in ("train_gt", "gt_crops"):
        with pytest.raises(ConfigError, match=f"{source} needs a run"):
            evaluate_mapped_files(*paths, _rule(source))
    with pytest.raises(ConfigError, match="which classes are known"):
        evaluate_mapped_files(*paths, _rule(scope="novel_only"))
    with pytest.raises(ConfigError, match="not 1 or more"):
        evaluate_mapped_files(*paths, _rule(), max_per_image=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_id": 999}, r"\[1\].*|999"),
        ({"score": "high"}, "score"),
        ({"segmentation": {"size": [SIDE, SIDE], "counts": "11"}}, "runs cover 2 pixels"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, change: dict[str, Any], match: str):
    truth, results = _scene()
    results = _renamed(results, {1: 50})
    results[1] |= change
    with pytest.raises(DataError, match=match):
        evaluate_mapped_files(*_files(tmp_path, truth, results), _rule())


def test_results_without_detections(tmp_path: Path):
    truth, _ = _scene()
    found = evaluate_mapped_files(*_files(tmp_path, truth, []), _rule(), KNOWN)
    assert (found["mapping"]["class_to_category"], found["box"]["AP"]) == ({}, 0.0)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, results = _scene()
    paths = _files(tmp_path, truth, _renamed(results, {3: 300, 4: 400}))
    command = ["evaluate", "--ground-truth", str(paths[0]), "--results", str(paths[1])]
    assert main(command) == 2
    assert "no category with id 400" in capsys.readouterr().err
    known = ["--known-classes", *KNOWN]
    assert main([*command, *known, "--mapping-source", "detections", "--json"]) == 0
    mapping = json.loads(capsys.readouterr().out)["mapping"]
    assert mapping["class_to_category"] == {"1": 1, "2": 2, "300": 3, "400": 4}
    assert main([*command, *known, "--mapping-source", "split_val"]) == 0
    assert "mapping: known outputs stand for" in capsys.readouterr().out
    for wrong, words in [
        (["--mapping-source", "gt_crops"], "needs a run"),
        (["--mapping-drop", "before_topk"], "no --mapping-source"),
        (["--max-per-image", "5"], "no --mapping-source"),
    ]:
        assert main([*command, *wrong]) == 2
        assert words in capsys.readouterr().err
