"""Masks from outside: what is accepted, what is refused, and why."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scene_tables import memory_table, rectangle_scenes

from gcdis_ray.data.sets.sorted_runs import SortedRuns
from gcdis_ray.errors import DataError
from gcdis_ray.instances import external_masks
from gcdis_ray.instances.external_masks import (
    EXTERNAL_MASKS,
    ImportMasks,
    check_refused,
    proposal_id,
    read_results,
)
from gcdis_ray.masks.coco_rle import decode
from gcdis_ray.store.s3 import Prefix
from gcdis_ray.store.schemas import PROPOSALS, QUARANTINE, check_schema
from gcdis_ray.store.source import source_file


@pytest.fixture(scope="module")
def rectangles():
    return rectangle_scenes()


def _entry(image_id=300, **changes):
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    return {"image_id": image_id, "segmentation": square, "score": 0.5} | changes


def _import(rectangles, entries, **options):
    run = ImportMasks(**({"min_score": 0.0, "max_per_image": 10} | options)).open("cpu")
    rows = [
        {"shard": 2, "position": n, "image_id": e["image_id"], "entry": json.dumps(e)}
        for n, e in enumerate(entries)
    ]
    masks = pa.Table.from_pylist(rows, schema=EXTERNAL_MASKS)
    return run(2, rectangles.images.shard(2), masks)


class TestImport:
    def test_polygons_and_rle(self, rectangles):
        truth = rectangles.truth[301][0]
        rle = {"size": [64, 64], "counts": truth["mask_rle"]}
        entries = [_entry(), _entry(301, segmentation=rle, score=1)]
        found = _import(rectangles, entries)
        assert found["quarantine"].num_rows == 0
        first, second = check_schema("proposals", found["proposals"], PROPOSALS).to_pylist()
        assert np.array_equal(
            np.flatnonzero(decode(first["mask_rle"], 64, 64).any(0))[[0, -1]], [10, 29]
        )
        assert second["mask_rle"] == truth["mask_rle"]
        assert second["bbox_xyxy"] == truth["bbox_xyxy"]
        assert second["area_px"] == truth["area_px"]
        assert second["origin"] == "external"
        assert [first["proposal_id"], second["proposal_id"]] == [
            proposal_id(2, 0),
            proposal_id(2, 1),
        ]

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"score": 1.5}, "score"),
            ({"score": float("nan")}, "score"),
            ({"score": "high"}, "score"),
            ({"score": True}, "score"),
            ({"segmentation": None}, "neither"),
            ({"segmentation": {"size": [3, 3], "counts": [9]}}, "outside"),
            ({"segmentation": {"size": [64, 64], "counts": [4096]}}, "zero-area mask"),
            ({"segmentation": [[1, 1, 500, 1, 500, 500]]}, "outside"),
        ],
    )
    def test_refused_with_the_reason(self, rectangles, changes, reason):
        found = _import(rectangles, [_entry(**changes), _entry()])
        assert found["proposals"].num_rows == 1
        refused = check_schema("quarantine", found["quarantine"], QUARANTINE).to_pylist()
        assert refused[0]["uri"] == "image 300"
        assert reason in refused[0]["reason"]

    def test_best_of_each_image(self, rectangles):
        scores = [0.2, 0.9, 0.4, 0.05]
        found = _import(
            rectangles, [_entry(score=s) for s in scores], min_score=0.1, max_per_image=2
        )
        kept = found["proposals"]["objectness"].to_pylist()
        assert kept == pytest.approx([0.9, 0.4])


def _read(folder, scenes, work, *told):
    file = source_file(str(folder / "a.json"))
    return read_results(*file, scenes.images, work.spool, *told)


class TestRead:
    def test_by_shard_of_the_image(self, rectangles, local_work, tmp_path):
        ids = [305, 300, 100, "x", 9, 305, True, 305.0]
        (tmp_path / "a.json").write_text(json.dumps([_entry(i) | {"id": 1} for i in ids]))
        masks, strangers = _read(tmp_path, rectangles, local_work)
        assert [masks.shard(i).num_rows for i in range(masks.num_shards)] == [2, 0, 4, 0]
        assert strangers == 2  # of a labeled image, of no image
        *odd, _, _, _, _ = rows = masks.read().to_pylist()
        assert [(row["image_id"], row["position"]) for row in odd] == [(-1, 3), (-1, 6)]
        assert json.loads(odd[0]["entry"]) == "image_id 'x' is a text, not a whole number"
        rows = rows[2:]
        assert [(row["image_id"], row["position"]) for row in rows] == [
            (305, 0), (300, 1), (305, 5), (305, 7)
        ]  # fmt: skip
        entry = _entry()
        del entry["image_id"]
        assert json.loads(rows[0]["entry"]) == entry

    def test_in_any_pieces(self, local_work, tmp_path, monkeypatch):
        scenes = rectangle_scenes(["unlabeled", "labeled", "unlabeled"])
        ids = [100 + 200 * (n % 2) + n % 6 for n in range(50)]
        (tmp_path / "a.json").write_text(
            json.dumps([_entry(i, score=n) for n, i in enumerate(ids)])
        )
        whole, _ = _read(tmp_path, scenes, local_work)
        told = []
        monkeypatch.setattr(external_masks, "_BATCH_BYTES", 200)
        runs = partial(SortedRuns, run_bytes=500)
        monkeypatch.setattr(external_masks, "SortedRuns", runs)
        pieces, strangers = _read(tmp_path, scenes, local_work, lambda *n: told.append(n))
        assert strangers == 0
        assert told[-1] == (50, 50)
        assert len(told) > 5
        for shard in range(3):
            assert pieces.shard(shard).equals(whole.shard(shard))
            positions = whole.shard(shard)["position"].to_pylist()
            assert positions == sorted(positions)

    def test_from_a_bucket(self, rectangles, local_work, s3_endpoint, tmp_path):
        uri = f"s3://bucket/{tmp_path.name}"
        Prefix(uri, s3_endpoint).write("a.json", json.dumps([_entry()]).encode())
        file = source_file(f"{uri}/a.json", s3_endpoint)
        masks, _ = read_results(*file, rectangles.images, local_work.spool)
        assert masks.num_rows == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[1, 2]", r"a.json: \[0\]: a record must be an object, not int"),
            ('{"annotations": []}', "none of its 0 entries"),
            ('{"results": []}', "a.json: is no list"),
            ("3", "a.json: is no list"),
            ('[{"image_id"', "the file ends in the middle"),
            ('[{"image_id": 300, "score": NaN}]', "NaN and Infinity are no JSON numbers"),
            ("[" * 60_000, "nested more than 32 deep"),
            ("[]", "none of its 0 entries"),
            ('[{"image_id": 100}]', "none of its 1 entries belongs to an unlabeled image"),
            (None, "a.json: no such file"),
        ],
    )
    def test_bad_files(self, rectangles, local_work, tmp_path, text, message):
        if text is not None:
            (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=message) as caught:
            _read(tmp_path, rectangles, local_work)
        assert len(str(caught.value).splitlines()) <= 2
        assert "b'" not in str(caught.value)


def test_limit_on_refused():
    rows = [{"split": "unlabeled", "uri": "image 5", "reason": "empty mask"}] * 2
    refused = memory_table("quarantine", [rows])
    check_refused(refused, 200, 0.01)
    with pytest.raises(DataError, match=r"2 of 100 .*image 5: empty mask"):
        check_refused(refused, 100, 0.01)


class TestGuide:
    """What ``docs/masks.md`` says to write is what is read."""

    @pytest.fixture
    def folder(self, rectangles, tmp_path, monkeypatch):
        (tmp_path / "images").mkdir()
        told = [
            {"id": row["image_id"], "file_name": f"{row['image_id']}.png"}
            for row in rectangles.images.read().to_pylist()
        ]
        for image in told:
            Image.new("RGB", (64, 64)).save(tmp_path / "images" / image["file_name"])
        objects = [
            {"image_id": row["image_id"], "segmentation": {"size": [64, 64], "counts": rle}}
            for rows in rectangles.truth.values()
            for row in rows
            if (rle := row["mask_rle"])
        ]
        dataset = {"images": told, "annotations": objects}
        (tmp_path / "instances.json").write_text(json.dumps(dataset))
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def _run(self, block: int, folder: Path, **given: object) -> list[dict]:
        """Entries that a block of Python writes, taken in."""
        guide = (Path(__file__).parents[2] / "docs" / "masks.md").read_text()
        code = re.findall(r"```python\n(.*?)```", guide, re.S)[block]
        exec(code.replace("/data/my-coco", str(folder)), dict(given))
        return json.loads((folder / "masks.json").read_text())

    def test_masks_of_a_model(self, rectangles, folder):
        square = np.zeros((64, 64), bool)
        square[10:30, 10:30] = True
        entries = self._run(0, folder, masks_of=lambda pixels: [(square, 1.02), (~square, 0.5)])
        mine = [entry for entry in entries if entry["image_id"] == 300]
        assert [entry["score"] for entry in mine] == [1, 0.5]
        found = _import(rectangles, mine)
        assert found["quarantine"].num_rows == 0
        assert found["proposals"]["area_px"].to_pylist() == [400, 64 * 64 - 400]

    def test_true_masks(self, rectangles, folder):
        entries = self._run(-1, folder)
        mine = [entry for entry in entries if entry["image_id"] == 300]
        found = _import(rectangles, mine)
        truth = [row["mask_rle"] for row in rectangles.truth[300]]
        assert found["proposals"]["mask_rle"].to_pylist() == truth
