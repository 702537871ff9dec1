"""Average precision against pycocotools itself, numbers of lvis-api, and a slow reading of LVIS's
rules."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import lvis_numbers
import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from random_sets import SIZE, as_boxes, crowded_set, random_set
from table_scores import evaluate_tables

from gcdis_ray.errors import DataError
from gcdis_ray.metrics.detection_columns import RULES
from gcdis_ray.metrics.files.file_scores import evaluate_files, format_scores
from gcdis_ray.store.schemas import PREDICTIONS, TRUTH_INSTANCES

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def _write(folder: Path, truth: Any, results: Any) -> tuple[Path, Path]:
    paths = folder / "truth.json", folder / "results.json"
    for path, value in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(value))
    return paths


def _pycocotools(truth: Path, results: Path, kind: str) -> tuple[list[float], np.ndarray]:
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO(str(truth))
        evaluation = COCOeval(gt, gt.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats), evaluation.eval["precision"][:, :, :, 0, -1]


def _plain(value: float | None) -> float:
    return -1.0 if value is None else value


@pytest.mark.parametrize("block", range(10))
def test_equals_pycocotools_on_random_sets(tmp_path: Path, block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        truth, detections = random_set(seed)
        if not detections:
            continue
        for kind, key, rows in (
            ("segm", "mask", detections),
            ("bbox", "box", as_boxes(detections)),
        ):
            paths = _write(tmp_path, truth, rows)
            stats, precision = _pycocotools(*paths, kind)
            ours = evaluate_files(*paths, known_classes=["c0"])
            assert [_plain(ours[key][n]) for n in NAMES] == stats
            for part, columns in (("known", [0]), ("novel", [1, 2, 3])):
                values = precision[:, :, columns]
                want = values[values > -1].mean() if (values > -1).any() else -1
                assert _plain(ours[key][part]["AP"]) == want
            for column, name in enumerate(("c0", "c1", "c2", "c3")):
                values = precision[:, :, column]
                want = values[values > -1].mean() if (values > -1).any() else -1
                found = ours["per_class"][name][f"{key}_ap"]
                assert _plain(found) == want


def _slow_lvis(truth: dict, detections: list[dict], limit: int) -> dict[str, float]:
    """LVIS rules one class, image, threshold and detection at a time (masks)."""
    thresholds = np.linspace(0.5, 0.95, 10)
    areas = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
    limited = []
    for image in truth["images"]:
        mine = [d for d in detections if d["image_id"] == image["id"]]
        limited += sorted(mine, key=lambda d: -d["score"])[:limit]
    per_class: dict[tuple[str, int], list[list[float]]] = {}
    for area, (low, high) in areas.items():
        for category in truth["categories"]:
            values = []
            for threshold in thresholds:
                rows, total = [], 0
                for image in truth["images"]:
                    objects = [
                        a
                        for a in truth["annotations"]
                        if (a["image_id"], a["category_id"]) == (image["id"], category["id"])
                    ]
                    if not objects and category["id"] not in image["neg_category_ids"]:
                        continue
                    counts = [low <= a["area"] <= high for a in objects]
                    total += sum(counts)
                    used = [False] * len(objects)
                    mine = [
                        d
                        for d in limited
                        if (d["image_id"], d["category_id"]) == (image["id"], category["id"])
                    ]
                    for d in sorted(mine, key=lambda d: -d["score"]):
                        ious = [
                            float(
                                coco_mask.iou([d["segmentation"]], [a["segmentation"]], [0])[0, 0]
                            )
                            for a in objects
                        ]
                        fits = [n for n, iou in enumerate(ious) if iou >= threshold and not used[n]]
                        pool = [n for n in fits if counts[n]] or fits
                        if pool:
                            best = max(pool, key=lambda n: (ious[n], n))
                            used[best] = True
                            if counts[best]:
                                rows.append((d["score"], 1))
                            continue
                        outside = not low <= coco_mask.area(d["segmentation"]) <= high
                        if outside or category["id"] in image["not_exhaustive_category_ids"]:
                            continue
                        rows.append((d["score"], 0))
                if not total:
                    continue
                rows.sort(key=lambda r: -r[0])
                hits = np.array([hit for _, hit in rows])
                tp = np.cumsum(hits) if len(hits) else np.zeros(0)
                fp = np.arange(1, len(hits) + 1) - tp
                precision = tp / (fp + tp + np.spacing(1))
                recall = tp / total
                values.append(
                    [max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)]
                )
            if values:
                per_class[area, category["id"]] = values
    result = {}
    for area in areas:
        result[f"AP{area}"] = _mean([v for (a, _), v in per_class.items() if a == area])
    for group in "rcf":
        ids = {c["id"] for c in truth["categories"] if c["frequency"] == group}
        result[f"AP{group}"] = _mean([v for (a, c), v in per_class.items() if a == "" and c in ids])
    return result


def _mean(values_KTR: list[list[list[float]]]) -> float:
    """Classes vary fastest: the order of a sum decides its last bit."""
    if not values_KTR:
        return -1.0
    return float(np.mean(np.ascontiguousarray(np.moveaxis(np.array(values_KTR), 0, 2)).ravel()))


@pytest.mark.parametrize("block", range(6))
def test_lvis_rules_equal_a_slow_reading(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RULES, "lvis", replace(RULES["lvis"], max_per_image=9))
    for seed in range(1000 + block * 10, 1010 + block * 10):
        truth, detections = random_set(seed, lvis=True)
        ours = evaluate_files(*_write(tmp_path, truth, detections))
        assert ours["protocol"]["mask"].startswith("LVIS")
        want = _slow_lvis(truth, detections, 9)
        for name, value in want.items():
            assert _plain(ours["mask"][name]) == value, (seed, name)


@pytest.mark.parametrize("seed", json.loads(lvis_numbers.NUMBERS.read_text()))
def test_equals_lvis_api_to_the_last_bit(tmp_path: Path, seed: str) -> None:
    want = json.loads(lvis_numbers.NUMBERS.read_text())[seed]
    truth, detections = crowded_set(int(seed))
    assert lvis_numbers.digest(truth, detections) == want["sha256"], "make the file anew"
    assert Counter(row["image_id"] for row in detections).most_common(1)[0][1] > 300
    for kind, key, rows in (("segm", "mask", detections), ("bbox", "box", as_boxes(detections))):
        ours = evaluate_files(*_write(tmp_path, truth, rows))[key]
        found = {name: _plain(ours[name]).hex() for name in lvis_numbers.NAMES}
        assert found == want[kind]


@pytest.mark.parametrize(
    ("folder", "truth", "suffix", "expected", "split"),
    [
        ("voc2007-seg", "instances.json", "", "expected_metrics.json", None),
        ("coco-subset", "instances.json", "", "expected_metrics.json", "val"),
        ("lvis-sample", "instances.json", "_44", "expected_metrics_44.json", None),
        ("lvis-sample", "annotations_only_80_images.json", "_80", "expected_metrics_80.json", None),
    ],
)
def test_equals_the_reference_numbers(
    shared_data: Path, folder: str, truth: str, suffix: str, expected: str, split: str | None
) -> None:
    root = shared_data / folder
    want = json.loads((root / "reference_eval" / expected).read_text())
    images = json.loads((root / "splits.json").read_text())[split] if split else None
    for kind, key in (("segm", "mask"), ("bbox", "box")):
        results = root / "reference_eval" / f"results_{kind}{suffix}.json"
        ours = evaluate_files(root / truth, results, image_ids=images)
        for name, value in want[kind].items():
            assert ours[key][name.replace("@300", "")] == pytest.approx(value, abs=1e-6), name


def test_a_perfect_result_scores_one_and_the_kinds_follow_the_files(tmp_path: Path) -> None:
    truth, _ = random_set(3)
    for row in truth["annotations"]:
        row["iscrowd"] = 0
    perfect = [
        {k: row[k] for k in ("image_id", "category_id", "segmentation", "bbox")} | {"score": 1.0}
        for row in truth["annotations"]
    ]
    both = evaluate_files(*_write(tmp_path, truth, perfect))
    assert both["mask"]["AP"] == both["box"]["AP"] == pytest.approx(1)
    boxes = evaluate_files(*_write(tmp_path, truth, as_boxes(perfect)))
    assert boxes["mask"] is None
    assert "have no mask" in boxes["protocol"]["mask"]
    assert boxes["box"]["AP"] == pytest.approx(1)
    for row in truth["annotations"]:
        del row["segmentation"]
    assert evaluate_files(*_write(tmp_path, truth, perfect))["mask"] is None
    assert "mask" in format_scores(both)
    assert format_scores(boxes).count("not scored") == 1


def test_no_detections_score_zero(tmp_path: Path) -> None:
    truth, _ = random_set(4)
    scores = evaluate_files(*_write(tmp_path, truth, []))
    assert scores["mask"]["AP"] == scores["box"]["AR"] == 0


def test_names_win_over_ids_and_typos_are_answered(tmp_path: Path) -> None:
    truth, detections = random_set(5)
    truth["categories"][1]["name"] = "1"  # the id of another class
    paths = _write(tmp_path, truth, detections)
    by_name = evaluate_files(*paths, known_classes=["1"])["mask"]["known"]
    assert by_name == evaluate_files(*paths, known_classes=[3])["mask"]["known"]
    with pytest.raises(DataError, match="did you mean 'c2'"):
        evaluate_files(*paths, known_classes=["C2"])
    truth["categories"][0]["name"] = truth["categories"][2]["name"]
    paths = _write(tmp_path, truth, detections)
    with pytest.raises(DataError, match=r"names categories \[1, 5\]"):
        evaluate_files(*paths, known_classes=[truth["categories"][2]["name"]])


def _broken(change: str) -> tuple[Any, Any, str]:
    truth, detections = random_set(6)
    row = detections[0]
    if change == "image":
        row["image_id"] = 999
        return truth, detections, "no image with id 999"
    if change == "category":
        row["category_id"] = 2
        return truth, detections, "no category with id 2"
    if change == "score":
        row["score"] = "high"
        return truth, detections, "score 'high' is a text, not a number"
    if change == "no score":
        del row["score"]
        return truth, detections, "no 'score'"
    if change == "cut rle":
        row["segmentation"]["counts"] = row["segmentation"]["counts"][:-1]
        return truth, detections, "mask: the RLE string ends inside a number"
    if change == "open rle":
        row["segmentation"]["counts"] += "o"
        return truth, detections, "mask: the RLE string ends inside a number"
    if change == "size":
        row["segmentation"]["size"] = [3, 3]
        return truth, detections, r"its size is \[3, 3\], the image's \[60, 200\]"
    if change == "nothing":
        del row["segmentation"]
        return truth, detections, "neither mask nor box"
    if change == "not a list":
        return (
            truth,
            {"a": 1},
            r"results.json: is no list\n.*give a COCO results file: a list of detections",
        )
    if change == "row":
        return truth, [3], r"results.json: \[0\]: a record must be an object, not int"
    if change == "bbox":
        row["bbox"] = [0, 0, -1, 2]
        return truth, detections, "has a negative width or height"
    if change == "infinite bbox":
        row["bbox"] = [0, 0, float("inf"), 2]
        return truth, detections, r"results.json: \[0\]: not valid JSON"
    if change == "NaN score":
        detections[3]["score"] = float("nan")
        return truth, detections, r"results.json: \[3\]: not valid JSON \(NaN and Infinity are no"
    if change == "later":
        detections[-1]["category_id"] = 4
        return truth, detections, rf"results.json: \[{len(detections) - 1}\]: no category with id 4"
    if change == "long rle":
        row["segmentation"]["counts"] += "5"
        return truth, detections, r"\[0\]: mask .* runs cover 12029 pixels, .* = 12000"
    if change == "long rle of truth":
        truth["annotations"][2]["segmentation"]["counts"] += "5"
        return truth, detections, r"truth.json: annotations\[2\]: mask outside the image: runs"
    if change == "negative truth":
        truth["annotations"][1]["bbox"] = [3, 4, 5, -6]
        return truth, detections, r"annotations\[1\]: box .* has a negative width"
    if change == "image twice":
        truth["images"].append(truth["images"][1])
        return truth, detections, r"images\[4\]: image id 11 occurs twice"
    if change == "category twice":
        truth["categories"].append(truth["categories"][0])
        return truth, detections, "category id 1 occurs twice"
    if change == "frequency":
        truth, detections = random_set(6, lvis=True)
        truth["categories"][2]["frequency"] = ["often"]
        return (
            truth,
            detections,
            r"categories\[2\]: frequency \['often'\] of .* is none of r",
        )
    if change == "some lists":
        for row in truth["images"]:
            row.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        del truth["images"][2]["neg_category_ids"]
        return truth, detections, r"images\[2\]: image 12 lacks neg_category_ids or .* unlike"
    if change == "no list":
        for row in truth["images"]:
            row.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        truth["images"][1]["not_exhaustive_category_ids"] = 5
        return truth, detections, r"images\[1\]: not_exhaustive_category_ids 5 is no list"
    if change == "unlisted":
        for row in truth["images"]:
            row.update(neg_category_ids=[], not_exhaustive_category_ids=[])
        truth["images"][1]["neg_category_ids"] = [8]
        return truth, detections, r"images\[1\]: neg_category_ids holds 8, which is no cat"
    if change == "negative area":
        truth["annotations"][1]["area"] = -5
        return truth, detections, r"annotations\[1\]: area -5 is negative"
    if change == "crowd":
        truth["annotations"][1]["iscrowd"] = "no"
        return truth, detections, r"annotations\[1\]: iscrowd 'no' is a text, not 0 or 1"
    if change == "height":
        truth["images"][1]["height"] = -3
        return truth, detections, r"images\[1\]: height -3 is negative"
    if change == "huge box":
        row["bbox"] = [1e308] * 4
        return truth, detections, r"\[0\]: box .* is not within 1e\+09 pixels"
    if change == "huge rle":
        for image in truth["images"]:
            del image["height"]
        row["segmentation"] = {"size": [1 << 20, 1 << 20], "counts": [1 << 40]}
        return truth, detections, r"\[0\]: mask: no mask can have the size 1048576 x"
    if change == "null":
        return truth, [None, *detections], r"\[0\]: a record must be an object, not NoneType"
    if change == "category of truth":
        truth["annotations"][0]["category_id"] = 8
        return truth, detections, r"annotations\[0\]: no category with id 8"
    if change == "shapeless truth":
        del truth["annotations"][0]["segmentation"], truth["annotations"][0]["bbox"]
        return truth, detections, r"annotations\[0\]: neither mask nor box"
    truth["annotations"] = None
    return (
        truth,
        detections,
        r"truth.json: 'annotations' is no list\n.*give a COCO or LVIS annotation file with",
    )


@pytest.mark.parametrize(
    "change",
    [
        "image", "category", "score", "no score", "cut rle", "open rle", "size", "nothing",
        "not a list", "row", "bbox", "truth", "infinite bbox", "NaN score", "later", "long rle",
        "long rle of truth", "negative truth", "image twice", "category twice", "frequency",
        "category of truth", "shapeless truth", "some lists", "no list", "unlisted",
        "negative area", "crowd", "height", "huge box", "huge rle", "null",
    ],
)  # fmt: skip
def test_bad_files_are_named_in_a_line(tmp_path: Path, change: str) -> None:
    truth, results, message = _broken(change)
    with pytest.raises(DataError, match=message) as caught:
        evaluate_files(*_write(tmp_path, truth, results))
    assert str(caught.value).count("\n") <= 1


def test_files_that_are_no_files(tmp_path: Path) -> None:
    truth, results = _write(tmp_path, *random_set(7))
    with pytest.raises(DataError, match="no such file"):
        evaluate_files(tmp_path / "none.json", results)
    whole = results.read_bytes(), truth.read_bytes()
    for path, data in zip((results, truth), whole, strict=True):
        cut = len(data) * 9 // 10
        path.write_bytes(data[:cut])
        with pytest.raises(
            DataError,
            match=rf"{path.name}.*the file ends in the middle .*, at or before byte {cut}\n",
        ):
            evaluate_files(truth, results)
        path.write_bytes(data)
    for data, reason in (
        (b"\xff\xd8 not json", "not valid JSON"),
        (b"[" * 1000, "nested more than 32 deep"),
        (b'[{"a": ' * 1000, "nested more than 32 deep"),
        (b"", "the file is empty"),
        (b'[{"image_id": 1}] 3', "not valid JSON"),
    ):
        results.write_bytes(data)
        with pytest.raises(DataError, match=rf"results.json: .*({reason})"):
            evaluate_files(truth, results)


@pytest.mark.parametrize("lvis", [False, True])
def test_the_way_results_are_written_changes_nothing(tmp_path: Path, lvis: bool) -> None:
    truth, detections = random_set(12, lvis)
    want = evaluate_files(*_write(tmp_path, truth, detections))
    results = tmp_path / "results.json"

    def runs(rle: dict) -> dict:
        mask = coco_mask.decode(rle).ravel(order="F")
        bounds = np.flatnonzero(np.diff(mask, prepend=0, append=mask[-1] ^ 1))
        return {"size": rle["size"], "counts": np.diff(bounds, prepend=0).tolist()}

    mixed = [row | {"segmentation": runs(row["segmentation"])} for row in detections[::2]]
    mixed = [row for pair in zip(mixed, detections[1::2], strict=False) for row in pair]
    mixed += detections[len(mixed) :]
    extra = [row | {"parts": [{"a": 1}, {"b": "}, {"}], "id": 4} for row in detections]
    for text in (
        json.dumps(detections, indent=1),
        json.dumps(detections, separators=(",", ":")),
        "\n " + json.dumps(detections) + " \n",
        json.dumps({"info": {}, "annotations": detections}),
        json.dumps(extra),
        json.dumps([row | {"bbox": None} for row in detections]),
        json.dumps([row | {"bbox": []} for row in detections]),
        json.dumps(mixed),
    ):
        results.write_text(text)
        assert evaluate_files(tmp_path / "truth.json", results) == want


def test_blocks_of_any_size_give_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, detections = random_set(14)
    paths = _write(tmp_path, truth, detections)
    want = evaluate_files(*paths)
    monkeypatch.setattr("gcdis_ray.metrics.files.coco_results.checked_batches", None)
    for size in range(400, 420):
        monkeypatch.setattr("gcdis_ray.metrics.files.coco_batches._BLOCK_BYTES", size)
        assert evaluate_files(*paths) == want


@pytest.mark.parametrize("lvis", [False, True])
def test_large_ground_truth_is_read_as_a_stream_with_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lvis: bool
) -> None:
    paths = _write(tmp_path, *random_set(16, lvis))
    with monkeypatch.context() as patch:
        patch.setattr("gcdis_ray.files.json_file._outline", None)
        want = evaluate_files(*paths)
    monkeypatch.setattr("gcdis_ray.files.json_file.MAX_PARSED_BYTES", 0)
    assert evaluate_files(*paths) == want


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1" * 30, "1" * 5000, "[" * 100_000])
def test_ground_truth_that_is_no_json_is_named(tmp_path: Path, number: str) -> None:
    truth, results = _write(tmp_path, *random_set(17))
    truth.write_text(truth.read_text().replace('"area": ', f'"area": {number}, "other": ', 1))
    with pytest.raises(DataError, match=r"truth.json.*(not valid JSON|64 bits|more than 32 deep)"):
        evaluate_files(truth, results)


def test_scoring_files_imports_no_pandas(tmp_path: Path) -> None:
    paths = [str(path) for path in _write(tmp_path, *random_set(18, lvis=True))]
    script = (
        "import sys; from gcdis_ray.metrics.files.file_scores import evaluate_files; "
        "evaluate_files(*sys.argv[1:]); print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", script, *paths]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout == "False\n"


def test_frequencies_that_counts_speak_against_are_counted(tmp_path: Path) -> None:
    truth, detections = random_set(9, lvis=True)
    for row, count in zip(truth["categories"], (10, 11, 101, 11), strict=True):
        row["image_count"] = count
    counts = evaluate_files(*_write(tmp_path, truth, detections))["counts"]
    assert counts["frequency_contradicted"] == 1
    truth["categories"][2]["image_count"] = 100
    scores = evaluate_files(*_write(tmp_path, truth, detections))
    assert scores["counts"]["frequency_contradicted"] == 2
    assert "frequency: 2 of 4 classes are marked r, c or f against" in format_scores(scores)


@pytest.mark.parametrize("lvis", [False, True])
def test_only_some_images(tmp_path: Path, lvis: bool) -> None:
    truth, detections = random_set(15, lvis)
    ids = [10, 12]
    part = truth | {
        "images": [row for row in truth["images"] if row["id"] in ids],
        "annotations": [row for row in truth["annotations"] if row["image_id"] in ids],
    }
    want = evaluate_files(*_write(tmp_path, part, [d for d in detections if d["image_id"] in ids]))
    assert evaluate_files(*_write(tmp_path, truth, detections), image_ids=ids) == want
    with pytest.raises(DataError, match="no image with id 99"):
        evaluate_files(*_write(tmp_path, truth, detections), image_ids=[10, 99])


def test_tables_give_the_numbers_of_files(tmp_path: Path) -> None:
    truth, detections = random_set(8)
    for row in detections:
        row["category_id"] = {7: 5}.get(row["category_id"], row["category_id"])
    ours = evaluate_files(*_write(tmp_path, truth, detections), known_classes=["c0"])

    def xyxy(rle: dict) -> list[float]:
        x, y, w, h = coco_mask.toBbox(rle).tolist()
        return [x, y, x + w, y + h]

    common = {"height_px": SIZE[0], "width_px": SIZE[1]}
    objects = [
        common
        | {
            "instance_id": row["id"],
            "image_id": row["image_id"],
            "category_id": row["category_id"],
            "class_index": -1,
            "bbox_xyxy": xyxy(row["segmentation"]),
            "mask_rle": row["segmentation"]["counts"],
            "area_px": row["area"],
            "iscrowd": bool(row["iscrowd"]),
            "split": "validation",
        }
        for row in truth["annotations"]
    ]
    to_class = {1: 0, 3: 4, 5: 2}
    predicted = [
        common
        | {
            "image_id": row["image_id"],
            "class_index": to_class[row["category_id"]],
            "score": row["score"],
            "bbox_xyxy": xyxy(row["segmentation"]),
            "mask_rle": row["segmentation"]["counts"],
        }
        for row in detections
    ]
    predicted.append(predicted[0] | {"class_index": 9})
    scores = evaluate_tables(
        [row["id"] for row in truth["images"]],
        pa.Table.from_pylist(objects, schema=TRUTH_INSTANCES),
        pa.Table.from_pylist(predicted, schema=PREDICTIONS),
        [
            {"category_id": c["id"], "name": c["name"], "known": c["name"] == "c0"}
            for c in truth["categories"]
        ],
        {c: category for category, c in to_class.items()},
    )
    assert scores["counts"]["unmapped_predictions"] == 1
    for part in ("", "known", "novel"):
        found, want = (r["mask"][part] if part else r["mask"] for r in (scores, ours))
        for name in ("AP", "AP50"):
            assert found[name] == pytest.approx(want[name], abs=1e-12)
    assert scores["per_class"]["c1"]["mask_ap"] == ours["per_class"]["c1"]["mask_ap"]
