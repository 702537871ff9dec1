"""Annotations of chosen images: by image, checked, whatever their order in the file."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from coco_folder import HEIGHT, WIDTH, make_coco_folder, square, write_json
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.data.formats.open_file import open_annotations
from gcdis_ray.data.sets.annotations import ANNOTATION_RUNS, CheckedAnnotations, Selection
from gcdis_ray.data.sets.data_config import ImageSet
from gcdis_ray.data.sets.image_list import ImageList, SourceImage
from gcdis_ray.data.sets.sorted_runs import SortedRuns
from gcdis_ray.errors import DataError
from gcdis_ray.run.work import StageWork
from gcdis_ray.store.source import open_source

GOOD = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}


def selection(root: Path, ids: range, category_ids: set[int] | None) -> Selection:
    chosen = ImageSet(images=".", annotations="all.json")
    source = open_annotations(open_source(str(root)), chosen)
    records = list(source.images())
    images = ImageList(
        SourceImage(r.image_id, r.file_name, r.height_px, r.width_px, r.image_id)
        for r in records
        if r.image_id in ids
    )
    listed = np.sort(np.array([r.image_id for r in records], dtype=np.int64))
    return Selection(source, images, listed, category_ids)


def by_image(checked: CheckedAnnotations, num_images: int) -> list[tuple[list[int], list[Any]]]:
    return [
        (rows["instance_id"].to_pylist(), bad)
        for rows, bad in checked.parts(range(1, num_images + 1))
    ]


def test_only_what_was_asked_for(tmp_path: Path, local_work: StageWork):
    make_coco_folder(tmp_path)
    chosen = selection(tmp_path, range(1, 5), {1, 2})
    checked = CheckedAnnotations(chosen, local_work.spool)
    assert by_image(checked, 4) == [([10], []), ([20], []), ([30], []), ([40], [])]
    assert (checked.num_accepted, checked.num_rejected) == (4, 0)
    everything = selection(tmp_path, range(1, 5), None)
    assert CheckedAnnotations(everything, local_work.spool).num_accepted == 8


def test_rejected_with_reasons_whatever_the_order(tmp_path: Path, local_work: StageWork):
    data = make_coco_folder(tmp_path)
    rows = data["annotations"]
    by_id = {row["id"]: row for row in rows}
    by_id[10]["segmentation"] = square(33, 5, 10)
    by_id[20]["bbox"] = [0, 0, 1000, 1000]
    by_id[30]["category_id"] = 77
    rows.append({**GOOD, "id": 900, "image_id": 900})
    rows.append({**GOOD, "id": 901, "image_id": None})
    rows.append({**GOOD, "id": 40, "image_id": 4, "category_id": 1, "bbox": [1, 1, 5, 5]})
    results, digests, checked = [], [], None
    for order in (rows, rows[::-1]):
        write_json(tmp_path / "all.json", {**data, "annotations": order})
        chosen = selection(tmp_path, range(1, 5), {1, 2})
        checked = CheckedAnnotations(chosen, local_work.spool)
        results.append(by_image(checked, 4))
        digests.append(chosen.digest())
    assert results[0] == results[1]
    assert digests[0] == digests[1]
    assert digests[0].startswith("7:")
    assert checked is not None
    assert (checked.num_accepted, checked.num_rejected) == (1, 6)
    assert [ids for ids, _ in results[0]] == [[], [], [], [40]]
    reasons = [f"{row} {reason}" for _, bad in results[0] for row, reason in bad]
    for expected in (
        "0 annotation 10: mask outside the image: a polygon spans x 33..43, y 5..15, the image "
        "is 40 wide and 30 high",
        "1 annotation 20: box [0.0, 0.0, 1000.0, 1000.0] outside the image, 40 wide, 30 high",
        "2 annotation 30: no category with id 77",
        "3 annotation 40: its id occurs twice",
        "-1 annotation 900: no image with id 900",
        "-1 annotation 901: no 'image_id'",
    ):
        assert expected in reasons
    with pytest.raises(
        DataError,
        match=r"6 of 7 annotations cannot be used, .*no image with id 900.*\n.*max_quarantined",
    ):
        checked.check_share(0.5, "here")
    checked.check_share(0.9, "here")


class Noted(dict[str, Any]):
    """A record that notes what is read of it."""

    read: set[str]

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)


def test_whatever_is_read_of_an_annotation_changes_the_digest(tmp_path: Path):
    full = GOOD | {"segmentation": square(1, 2, 3), "area": 9, "ignore": 0, "id": 7}
    rows = [full, GOOD, {"id": 2, "image_id": 1}, full | {"image_id": 99}, {"category_id": 3}]

    data = make_coco_folder(tmp_path)

    def chosen(rows: list[dict[str, Any]]) -> Selection:
        write_json(tmp_path / "all.json", {**data, "annotations": rows})
        return selection(tmp_path, range(1, 5), None)

    before, read = chosen(rows), set[str]()
    digest = before.digest()

    class Source:
        categories, labels_images = before.source.categories, before.source.labels_images

        def annotations(self, passed_over: Any) -> Any:
            for raw in before.source.annotations(passed_over):
                noted = Noted(raw)
                noted.read = read
                yield noted

    source: Any = Source()
    checked = next(Selection(source, before.images, before.listed_ids, None).checked())
    assert [row[-1] is None for row in checked] == [True, True, False, False, False]
    assert read >= {"id", "image_id", "category_id", "bbox", "segmentation", "area", "iscrowd"}
    for name in sorted(read):
        after = chosen([full | {name: "other"}, *rows[1:]])
        assert after.digest() != digest, name
    label = {"id": 1, "image_id": 1, "category_id": 1}  # of an image
    assert chosen([label]).digest() != chosen([label | {"bbox": None}]).digest()


def test_an_id_on_two_images_stays_with_the_first_image(tmp_path: Path, local_work: StageWork):
    data = make_coco_folder(tmp_path)
    same = {**GOOD, "id": 10, "image_id": 3}
    for order in ([*data["annotations"], same, same], [same, *data["annotations"], same]):
        write_json(tmp_path / "all.json", {**data, "annotations": order})
        checked = CheckedAnnotations(selection(tmp_path, range(1, 5), {1, 2}), local_work.spool)
        found = by_image(checked, 4)
        assert [ids for ids, _ in found] == [[10], [20], [30], [40]]
        assert [len(bad) for _, bad in found] == [0, 0, 2, 0]
        assert (checked.num_accepted, checked.num_rejected) == (4, 2)


def test_an_annotation_that_stands_there_twice_is_kept_once(tmp_path: Path, local_work: StageWork):
    data = make_coco_folder(tmp_path)
    data["annotations"].append(data["annotations"][0])
    write_json(tmp_path / "all.json", data)
    checked = CheckedAnnotations(selection(tmp_path, range(1, 5), {1, 2}), local_work.spool)
    assert by_image(checked, 4)[0] == ([10], [(0, "annotation 10: its id occurs twice")])


def test_one_changed_annotation_changes_the_digest(tmp_path: Path):
    data = make_coco_folder(tmp_path)
    before = selection(tmp_path, range(1, 5), {1, 2}).digest()
    data["annotations"][1]["bbox"] = [1, 1, 2, 2]  # of a class that is not looked at
    write_json(tmp_path / "all.json", data)
    assert selection(tmp_path, range(1, 5), {1, 2}).digest() == before
    data["annotations"][0]["bbox"] = [1, 1, 2, 2]
    write_json(tmp_path / "all.json", data)
    assert selection(tmp_path, range(1, 5), {1, 2}).digest() != before


@examples(50)
@given(
    keys=st.lists(st.integers(-1, 12), max_size=60),
    cuts=st.lists(st.integers(0, 13), max_size=6),
    run_bytes=st.integers(1, 2000),
    batch=st.integers(1, 9),
)
def test_sorted_runs_give_every_row_once_and_in_order(
    keys: list[int], cuts: list[int], run_bytes: int, batch: int
):
    """Against sorting the whole."""
    schema = ANNOTATION_RUNS
    rows = [
        dict(
            image_row=key,
            instance_id=number,
            category_id=0,
            bbox_xyxy=[0, 0, 1, 1],
            mask_rle=None,
            area_px=1.0,
            iscrowd=False,
            reason=None,
        )
        for number, key in enumerate(keys)
    ]
    random.Random(len(keys)).shuffle(rows)
    runs = SortedRuns(MemoryPieces, "annotation_runs", schema, ("instance_id",), run_bytes)
    for start in range(0, len(rows), batch):
        runs.add(pa.Table.from_pylist(rows[start : start + batch], schema))
    runs.flush()
    bounds = [*sorted(cuts), 100]
    found = []
    for bound, part in zip(bounds, runs.parts(bounds), strict=True):
        of_part = part["image_row"].to_pylist() if part is not None else []
        assert all(key < bound for key in of_part)
        found.append(of_part)
    assert [key for part in found for key in part] == sorted(keys)
    for lower, part in zip(bounds, found[1:], strict=False):
        assert all(key >= lower for key in part)


class MemoryPieces:
    """Pieces of a run, in memory."""

    def __init__(self, name: str, schema: pa.Schema) -> None:
        self._pieces: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        self._pieces.append(table)

    def close(self) -> Any:
        return self

    def iter_shards(self):
        return iter(self._pieces)


def test_sizes(tmp_path: Path):
    make_coco_folder(tmp_path)
    images = selection(tmp_path, range(1, 5), None).images
    assert images.size_px_N2.tolist() == [[HEIGHT, WIDTH]] * 4
    assert images.rows_of(np.array([4, 99, -1, 1])).tolist() == [3, -1, -1, 0]
