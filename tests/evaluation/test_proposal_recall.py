"""Average recall of proposals over shards: by hand, and the same however images are split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scene_tables import memory_table

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.proposal_recall import MatchProposals, proposals_block, score_proposals
from gcdis_ray.evaluation.tables import PROPOSAL_RECALL, PROPOSAL_TOTALS
from gcdis_ray.masks.coco_rle import encode_window
from gcdis_ray.run.work import StageWork
from gcdis_ray.store.schemas import PROPOSALS, TRUTH_IMAGES, TRUTH_INSTANCES

SIZE = 200
KNOWN, NOVEL = 4, 9
CLASSES = ClassColumns(
    [{"category_id": KNOWN, "known": True}, {"category_id": NOVEL, "known": False}], {0: 0}
)
Rows = list[dict[str, Any]]


def _thing(image_id: int, box: list[int], masked: bool = True) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    window = np.ones((y1 - y0, x1 - x0), bool)
    return {
        "image_id": image_id,
        "bbox_xyxy": box,
        "mask_rle": encode_window(window, x0, y0, SIZE, SIZE) if masked else None,
        "height_px": SIZE,
        "width_px": SIZE,
        "area_px": float(window.size),
    }


def an_object(image_id: int, box: list[int], category_id: int, **more: Any) -> dict[str, Any]:
    masked = more.pop("masked", True)
    told = {"instance_id": 1, "category_id": category_id, "class_index": -1, "iscrowd": False}
    return _thing(image_id, box, masked) | told | {"split": "unlabeled"} | more


def a_proposal(image_id: int, box: list[int], objectness: float) -> dict[str, Any]:
    told = {"proposal_id": 1, "objectness": objectness, "origin": "model"}
    return _thing(image_id, box) | told


def an_image(image_id: int, split: str = "unlabeled") -> dict[str, Any]:
    return {"image_id": image_id, "split": split, "height_px": SIZE, "width_px": SIZE}


def scored(images: Rows, objects: Rows, proposals: Rows, cuts: tuple[int, ...] = ()) -> dict:
    """The block, of images split at these ids."""
    found: dict[str, list[pa.Table]] = {"proposal_recall": [], "proposal_totals": []}
    match = MatchProposals((KNOWN,)).open("cpu")
    for shard in range(len(cuts) + 1):
        given = (
            pa.Table.from_pylist(_of(rows, shard, cuts), schema)
            for rows, schema in (
                (proposals, PROPOSALS),
                (images, TRUTH_IMAGES),
                (objects, TRUTH_INSTANCES),
            )
        )
        for name, table in match(shard, *given).items():
            found[name].append(table)
    recall, totals = (pa.concat_tables(tables) for tables in found.values())
    assert (recall.schema, totals.schema) == (PROPOSAL_RECALL, PROPOSAL_TOTALS)
    return proposals_block(recall, totals)


def _of(rows: Rows, shard: int, cuts: tuple[int, ...]) -> Rows:
    return [row for row in rows if np.searchsorted(cuts, row["image_id"]) == shard]


def scene() -> tuple[Rows, Rows, Rows]:
    """Image 1: a small known object met at IoU 0.82, a novel one met by the last of twelve. Image
    2: a large novel object that is met well, a crowd, and one that nothing meets."""
    objects = [
        an_object(1, [0, 0, 10, 10], KNOWN),
        an_object(1, [100, 100, 150, 150], NOVEL),
        an_object(2, [0, 0, 100, 100], NOVEL),
        an_object(2, [150, 150, 160, 160], NOVEL),
        an_object(2, [0, 100, 200, 150], KNOWN, iscrowd=True),
        an_object(3, [0, 0, 10, 10], KNOWN, split="validation"),
    ]
    first = a_proposal(1, [0, 0, 10, 10], 0.9)
    first |= {"mask_rle": encode_window(_but_18(), 0, 0, SIZE, SIZE)}
    proposals = [
        first,
        *(a_proposal(1, [20 + n, 0, 25 + n, 5], 0.8) for n in range(10)),
        a_proposal(1, [100, 100, 150, 150], 0.1),
        a_proposal(2, [0, 0, 100, 100], 0.5),
        a_proposal(2, [0, 0, 100, 99], 0.4),  # the object is taken
        a_proposal(3, [0, 0, 10, 10], 0.5),
    ]
    return [an_image(1), an_image(2), an_image(3, "validation")], objects, proposals


def _but_18() -> np.ndarray:
    mask = np.ones((10, 10), bool)
    mask[1:4, 1:7] = False
    return mask


def test_objects_are_counted_by_hand() -> None:
    block = scored(*scene())
    part = 7 / 10  # thresholds up to 0.8
    assert block["mask_ar10"] == pytest.approx(
        {"all": (part + 0 + 1 + 0) / 4, "known": part, "novel": (0 + 1 + 0) / 3}
    )
    assert block["mask_ar100"] == pytest.approx(
        {"all": (part + 1 + 1 + 0) / 4, "known": part, "novel": (1 + 1 + 0) / 3}
    )
    assert block["box_ar10"]["known"] == 1  # its box is right
    sizes = {"small": part / 2, "medium": 1, "large": 1}
    assert block["mask_ar100_by_size"] == pytest.approx(sizes)
    assert block["mask_ar10_by_size"] == pytest.approx(sizes | {"medium": 0})
    told = ("num_images", "num_objects", "num_proposals", "most_per_image", "reason")
    assert [block[name] for name in told] == [2, 4, 14, 12, None]
    assert "overlap of masks" in block["protocol"]["mask"]


@pytest.mark.parametrize("cuts", [(1,), (0, 1, 2, 5)])
def test_any_split_gives_the_same_numbers(cuts: tuple[int, ...]) -> None:
    assert scored(*scene(), cuts) == scored(*scene())


def test_an_object_without_a_mask_leaves_boxes() -> None:
    images, objects, proposals = scene()
    objects[1] |= {"mask_rle": None}
    block = scored(images, objects, proposals, (1,))
    assert block["mask_ar100"] == {"all": None, "known": None, "novel": None}
    assert block["mask_ar10_by_size"] == {"small": None, "medium": None, "large": None}
    assert block["protocol"]["mask"] == "not scored: 1 ground-truth objects have no mask"
    whole = scored(*scene())
    for name in ("box_ar10", "box_ar100", "box_ar100_by_size"):
        assert block[name] == whole[name]


def test_what_is_not_there_is_null_and_says_why() -> None:
    images, objects, proposals = scene()
    known = [row for row in objects if row["category_id"] == KNOWN]
    some = scored(images, known, proposals)
    assert some["mask_ar10"] == {"all": 0.7, "known": 0.7, "novel": None}
    assert some["mask_ar10_by_size"] == {"small": 0.7, "medium": None, "large": None}
    assert scored(images, known, [])["mask_ar10"]["all"] == 0
    none = scored([images[2]], objects[-1:], proposals)
    assert none["box_ar10"] == {"all": None, "known": None, "novel": None}
    assert none["reason"] == "no ground truth for unlabeled images"
    assert scored(images, [], proposals)["reason"] == "no true object in unlabeled images"


def test_runs_as_a_step_of_a_stage(local_work: StageWork) -> None:
    images, objects, proposals = scene()
    found = score_proposals(
        memory_table("proposals", [proposals[:12], proposals[12:]]),
        memory_table("truth_images", [images[:1], images[1:]]),
        memory_table("truth_instances", [objects[:2], objects[2:]]),
        CLASSES,
        local_work,
    )
    assert found == scored(images, objects, proposals)
