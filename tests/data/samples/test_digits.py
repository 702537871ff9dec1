"""Scenes of digits: the same bytes every time, masks that are the visible strokes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcdis_ray.data.samples import digits, letters
from gcdis_ray.errors import DataError
from gcdis_ray.masks import coco_rle

SMALL = dict(num_labeled=10, num_unlabeled=12, num_validation=6)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scenes"
    assert digits.write_scenes(root, **SMALL)
    return root


def content(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def annotations(root: Path, name: str) -> dict:
    return json.loads((root / f"annotations/{name}.json").read_text())


def test_same_seed_same_bytes(scenes: Path, tmp_path: Path):
    told = []
    digits.write_scenes(tmp_path / "again", **SMALL, show=told.append)
    assert content(tmp_path / "again") == content(scenes)
    total = len(list(scenes.rglob("*.jpg")))
    assert [(far.done, far.total) for far in told] == [(n, total) for n in range(total)]
    digits.write_scenes(tmp_path / "other", seed=1, **SMALL)
    other = content(tmp_path / "other")
    assert all(other[p] != h for p, h in content(scenes).items())


def test_written_once(scenes: Path):
    before = {p: p.stat().st_mtime_ns for p in scenes.rglob("*")}
    assert digits.write_scenes(scenes, **SMALL) is False
    assert {p: p.stat().st_mtime_ns for p in scenes.rglob("*")} == before


def test_nothing_is_overwritten(scenes: Path, tmp_path: Path):
    with pytest.raises(DataError, match="other parameters"):
        digits.write_scenes(scenes, seed=5, **SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="something other"):
        digits.write_scenes(tmp_path / "mine", **SMALL)
    assert content(tmp_path / "mine").keys() == {"thesis.txt"}
    digits.write_scenes(tmp_path / "cut", **SMALL)
    (tmp_path / "cut/images/labeled/000001.jpg").unlink()
    with pytest.raises(DataError, match="missing"):
        digits.write_scenes(tmp_path / "cut", **SMALL)


def test_an_empty_folder_is_used(tmp_path: Path):
    (tmp_path / "new").mkdir()
    tiny = dict(num_labeled=1, num_unlabeled=1, num_validation=1)
    assert digits.write_scenes(tmp_path / "new", **tiny)
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_an_ordinary_coco_folder(scenes: Path):
    image_ids, annotation_ids = [], []
    for name in digits.SETS:
        data = annotations(scenes, name)
        assert len(data["images"]) == SMALL[f"num_{name}"]
        assert [c["name"] for c in data["categories"]] == [f"digit {d}" for d in range(10)]
        image_ids += [image["id"] for image in data["images"]]
        annotation_ids += [a["id"] for a in data["annotations"]]
        for image in data["images"]:
            pixels = cv2.imread(str(scenes / "images" / name / image["file_name"]))
            assert pixels.shape == (image["height"], image["width"], 3) == (128, 128, 3)
        if name == "labeled":
            assert {a["category_id"] for a in data["annotations"]} <= {1, 2, 3, 4, 5}
        else:
            assert {a["category_id"] for a in data["annotations"]} & {6, 7, 8, 9, 10}
    assert len(set(image_ids)) == len(image_ids)
    assert len(set(annotation_ids)) == len(annotation_ids)


def test_masks_are_visible_legible_strokes(scenes: Path):
    for name in digits.SETS:
        data = annotations(scenes, name)
        for image in data["images"]:
            pixels = cv2.imread(str(scenes / "images" / name / image["file_name"]))
            light = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(float)
            seen = np.zeros((128, 128), int)
            for a in (a for a in data["annotations"] if a["image_id"] == image["id"]):
                rle = a["segmentation"]["counts"]
                mask = coco_rle.decode(rle, 128, 128)
                seen += mask
                x0, y0, x1, y1 = coco_rle.bbox_xyxy(rle, 128, 128)
                assert a["bbox"] == [x0, y0, x1 - x0, y1 - y0]
                assert a["area"] == mask.sum() >= 40
                assert max(x1 - x0, y1 - y0) <= 60
                core = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
                if core.any():  # one colour inside, another around
                    assert light[core].std() < 25
            assert seen.max() == 1  # a pixel shows one digit
            stroke = seen > 0
            ring = cv2.dilate(stroke.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
            assert abs(light[stroke][:, None] - light[ring & ~stroke].mean()).mean() > 30


def test_sets_share_no_sample():
    pools = digits._sample_pools(0)
    of_set = {
        name: {sample.tobytes() for samples in pool.values() for sample in samples}
        for name, pool in pools.items()
    }
    assert sum(map(len, of_set.values())) == len(set().union(*of_set.values()))
    assert set(pools["labeled"]) == set(digits.KNOWN_DIGITS)
    assert all(len(samples) > 25 for pool in pools.values() for samples in pool.values())


def test_long_tail():
    queue = digits._DigitQueue(digits._sample_pools(0)["unlabeled"], np.random.default_rng(0))
    counts = np.bincount([digit for digit, _ in queue.take(1600)], minlength=10)
    assert 3 < counts.max() / counts.min() < 5
    for part in (counts[:5], counts[5:]):  # head and tail on either side
        assert part.max() / part.min() > 2.5


def test_scenes_that_come_later_are_unlabeled_ones_with_a_letter(tmp_path: Path):
    new = dict(num_scenes=12, letter="A")
    assert digits.write_new_scenes(tmp_path / "new", **new)
    assert digits.write_new_scenes(tmp_path / "new", **new) is False
    assert {p.split("/")[0] for p in content(tmp_path / "new")} == {
        "annotations", "images", "scenes.json",
    }  # fmt: skip
    told = annotations(tmp_path / "new", "unlabeled")
    assert told["categories"][10:] == [{"id": 11, "name": "letter A"}]
    assert 0 < sum(a["category_id"] == 11 for a in told["annotations"]) < len(told["annotations"])
    digits.write_new_scenes(tmp_path / "again", **new)
    assert content(tmp_path / "again") == content(tmp_path / "new")
    digits.write_new_scenes(tmp_path / "other", num_scenes=12, letter="B", seed=1)
    other = annotations(tmp_path / "other", "unlabeled")
    assert other["categories"][10:] == [{"id": 12, "name": "letter B"}]
    digits.write_new_scenes(tmp_path / "digits", num_scenes=2)
    assert len(annotations(tmp_path / "digits", "unlabeled")["categories"]) == 10


@pytest.mark.parametrize("letter", ["a", "AB", "", "Ä"])
def test_what_is_no_letter_is_refused(tmp_path: Path, letter: str):
    with pytest.raises(DataError, match="no letter"):
        digits.write_new_scenes(tmp_path / "new", num_scenes=1, letter=letter)


def test_samples_of_a_letter_differ():
    drawn = letters.samples("G").reshape(-1, 64)
    assert len(np.unique(drawn.round(6), axis=0)) > 0.9 * len(drawn)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert ((drawn > 0.5).mean(axis=1) > 0.1).all()  # ink, as in digits
