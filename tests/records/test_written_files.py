"""Files as people and tools write them, read by evaluate and by ingest or as external masks."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from coco_folder import square
from record_readers import judge_results, judge_truth, small_results, small_truth

from gcdis_ray.data.formats.lvis import LvisFile
from gcdis_ray.data.formats.open_file import open_file
from gcdis_ray.metrics.files.file_scores import evaluate_files, format_scores
from gcdis_ray.store.source import open_source

TAKEN = {"evaluate": None, "ingest": []}
TAKEN_RESULTS = {"evaluate": None, "masks": []}


def scores(folder: Path, truth: Any, results: Any) -> dict[str, Any]:
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    return evaluate_files(*paths)


# ---------------------------------------------------------------- encodings


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    for text in (json.dumps(small_truth()), json.dumps(small_truth(), indent=1)):
        assert judge_truth(tmp_path, codecs.BOM_UTF8 + text.encode(), "a.json") == TAKEN
    for content in (small_results(), {"annotations": small_results()}):
        data = codecs.BOM_UTF8 + json.dumps(content).encode()
        assert judge_results(tmp_path, data, f"{type(content)}.json") == TAKEN_RESULTS


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("utf-16", "UTF-16"), ("utf-16-be", "UTF-16"), ("utf-32", "UTF-32"), ("utf-32-le", "UTF-32")],
)
def test_other_encodings_are_named(tmp_path: Path, encoding: str, named: str) -> None:
    said = judge_truth(tmp_path, json.dumps(small_truth()).encode(encoding), "a.json")
    said |= judge_results(tmp_path, json.dumps(small_results()).encode(encoding), "b.json")
    for message in said.values():
        assert f".json: the file is {named} text, not UTF-8 text\n  next: write it as" in message


def test_latin_1_and_compressed_files_are_named(tmp_path: Path) -> None:
    truth = small_truth()
    truth["categories"][0]["name"] = "Käfer"
    data = json.dumps(truth, ensure_ascii=False).encode("latin-1")
    for message in judge_truth(tmp_path, data, "a.json").values():
        assert message is not None
        assert "categories[0]: not UTF-8 text" in message
    for message in judge_truth(tmp_path, gzip.compress(data), "b.json").values():
        assert message is not None
        assert "the file is compressed (gzip), not UTF-8 text\n  next: unpack it" in message


# ---------------------------------------------------------------- numbers


def floats(value: Any) -> Any:
    """The same with every integer as ``1.0``."""
    if isinstance(value, dict):
        return {key: floats(held) for key, held in value.items()}
    if isinstance(value, list):
        return [floats(held) for held in value]
    return float(value) if isinstance(value, int) else value


def test_whole_floats_are_integers(tmp_path: Path) -> None:
    want = scores(tmp_path, small_truth(), small_results())
    assert scores(tmp_path, floats(small_truth()), floats(small_results())) == want
    data = json.dumps(floats(small_truth())).encode()
    assert judge_truth(tmp_path, data, "a.json") == TAKEN
    data = json.dumps(floats(small_results())).encode()
    assert judge_results(tmp_path, data, "b.json") == TAKEN_RESULTS


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("images", 0, "id"), "1", "images[0]: id '1' is a text, not a whole number"),
        (("images", 0, "height"), 30.5, "images[0]: height 30.5 is not a whole number"),
        (("categories", 1, "id"), "2", "categories[1]: id '2' is a text, not a whole number"),
        (("categories", 1, "id"), 2**64 - 1, "categories[1]: a whole number beyond 64 bits"),
        (("categories", 1, "name"), [2], "categories[1]: name [2] is neither a text nor a"),
    ],
)
def test_numbers_that_are_none(tmp_path: Path, place: Any, value: Any, words: str) -> None:
    truth = small_truth()
    section, position, name = place
    truth[section][position][name] = value
    said = judge_truth(tmp_path, json.dumps(truth).encode(), "a.json")
    for message in said.values():
        assert message is not None
        assert words in message


def test_large_ids_and_numeric_names(tmp_path: Path) -> None:
    truth, results = small_truth(), small_results()
    for row in [*truth["annotations"], *results]:
        row["image_id"] += 2**53
    for row in truth["images"]:
        row["id"] += 2**53
    for row in truth["categories"]:
        row["name"] = row["id"]
    assert judge_truth(tmp_path, json.dumps(truth).encode(), "a.json")["ingest"] == []
    found = scores(tmp_path, truth, results)
    assert found["box"] == scores(tmp_path, small_truth(), small_results())["box"]
    assert set(found["per_class"]) == {"1", "2"}


# ---------------------------------------------------------------- masks not needed


@pytest.mark.parametrize("mask", [[[]], [[], [1, 2]], [[1, 2, 3, 4]], [[1, 2]]])
def test_box_ap_does_not_need_masks(tmp_path: Path, mask: Any) -> None:
    truth, results = small_truth(), small_results()
    for row in results:
        del row["segmentation"]
    want = scores(tmp_path, truth, results)
    truth["annotations"][1]["segmentation"] = mask
    found = scores(tmp_path, truth, results)
    assert found["box"] == want["box"]
    assert found["counts"]["objects_with_unusable_mask"] == 1
    words = "1 mask of objects cannot be used, first"
    assert words in found["protocol"]["mask"]
    assert "annotations[1]: mask: no polygon with three or more points" in format_scores(found)
    assert judge_truth(tmp_path, json.dumps(truth).encode(), "a.json") == TAKEN


def test_a_mask_of_a_detection_that_says_nothing(tmp_path: Path) -> None:
    truth, results = small_truth(), small_results()
    del truth["annotations"][3]
    want = scores(tmp_path, truth, results)
    assert want["mask"] is not None
    results[1]["segmentation"] = [[]]
    found = scores(tmp_path, truth, results)
    assert (found["box"], found["mask"]) == (want["box"], None)
    assert found["counts"]["detections_with_unusable_mask"] == 1
    assert "[1]: mask: no polygon with three or more points" in found["protocol"]["mask"]


def test_boxes_alone_are_no_external_masks(tmp_path: Path) -> None:
    results = [{k: v for k, v in row.items() if k != "segmentation"} for row in small_results()]
    said = judge_results(tmp_path, json.dumps(results).encode(), "a.json")
    assert said["masks"] == ["a box only, and masks are needed"] * len(results)


def test_a_flat_polygon_is_said_rightly(tmp_path: Path) -> None:
    truth = small_truth()
    truth["annotations"][0]["segmentation"] = square(3, 5, 10)[0]
    for message in judge_truth(tmp_path, json.dumps(truth).encode(), "a.json").values():
        assert message is not None
        assert "the list is a polygon itself: write [[x, y, x, y, ...]]" in str(message)


# ---------------------------------------------------------------- LVIS or not


@pytest.mark.parametrize("frequency", [["r", "c"], "often", 3, None, "f"])
def test_a_frequency_alone_is_not_lvis(tmp_path: Path, frequency: Any) -> None:
    truth = small_truth()
    want = scores(tmp_path, truth, small_results())
    for row in truth["categories"]:
        row["frequency"] = frequency
    found = scores(tmp_path, truth, small_results())
    assert found == want
    assert judge_truth(tmp_path, json.dumps(truth).encode(), "a.json") == TAKEN
    assert not isinstance(open_file(open_source(str(tmp_path)), "truth.json"), LvisFile)


@pytest.mark.parametrize("frequency", [["r", "c"], "often", 3])
def test_a_wrong_frequency_of_lvis_is_named(tmp_path: Path, frequency: Any) -> None:
    truth = small_truth()
    for row in truth["images"]:
        row |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    truth["categories"][1]["frequency"] = frequency
    for message in judge_truth(tmp_path, json.dumps(truth).encode(), "a.json").values():
        assert message is not None
        assert f"categories[1]: frequency {frequency!r} of 'dog' is none of r, c, f" in message


# ---------------------------------------------------------------- what would take gigabytes


@pytest.mark.parametrize(
    "mask",
    [
        [[0, 0, 4e9, 0, 4e9, 4e9]],
        [[0, 0, 1e7, 0, 1e7, 1e7]],
        [[0, 0, 1e6, 1e6] * 3],
        {"size": [2**31, 2], "counts": [2**32]},
        {"size": [46341, 46341], "counts": "0"},
    ],
)
def test_huge_masks_are_named(tmp_path: Path, mask: Any) -> None:
    truth, results = small_truth(), small_results()
    truth["annotations"][2]["segmentation"] = mask
    said = judge_truth(tmp_path, json.dumps(truth).encode(), "a.json")
    assert "annotations[2]: mask" in str(said["evaluate"])
    assert "annotation 3: mask" in str(said["ingest"])
    results[1]["segmentation"] = mask
    said = judge_results(tmp_path, json.dumps(results).encode(), "b.json")
    assert "[1]: mask" in str(said["evaluate"])
    assert str(said["masks"]).startswith("['mask")
