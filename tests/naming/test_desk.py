"""What is seen of clusters at a desk, and what becomes of acts that are taken there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sorted_run import crops_of_class, write_run

from gcdis_ray.curating.acts import Merge, Name, Reject, Split, Undo
from gcdis_ray.errors import ArtifactError, ConfigError, CurationError
from gcdis_ray.naming.again import stages_after, what_follows
from gcdis_ray.naming.desk import Desk, Outdated, in_words
from gcdis_ray.naming.listing import PAGE, Query, page_of
from gcdis_ray.run.opened import open_run

CIRCLES, SQUARES, MIXED, ROUND = (crops_of_class(k) for k in (2, 3, 4, 5))


def names(desk: Desk) -> list[str]:
    return [cluster.name for cluster in desk.look().clusters]


def test_clusters_hold_their_crops_in_the_order_of_trust(desk: Desk):
    clusters = {c.number: c for c in desk.look().clusters}
    assert list(clusters) == [0, 1, 2, 3, 4, 5]  # one has no crop
    assert clusters[2].crops_M.tolist() == CIRCLES
    assert clusters[2].crop == CIRCLES[0]
    assert clusters[0].known
    assert clusters[0].labeled_L.tolist() == [0, 1]
    assert clusters[0].crop == 2  # acts are not about labels
    assert clusters[2].probability == pytest.approx(0.95 - 0.01 * 5.5)
    assert desk.crops.by_reliability


def test_without_pseudo_labels_crops_are_ranked_by_probability(tmp_path: Path):
    desk = Desk(open_run(write_run(tmp_path, pseudo_labels=False)))
    assert not desk.crops.by_reliability
    assert desk.look().clusters[2].crops_M.tolist() == CIRCLES


def test_the_nearest_cluster_is_the_one_that_looks_alike(desk: Desk):
    every = desk.look().clusters
    near = desk.surroundings.near(every, every, 3)
    assert [len(others) for others in near] == [3] * 6
    assert near[2][0][0].number == 5
    assert near[5][0][0].number == 2
    vectors = desk.crops.vectors
    own, other = (vectors.of(np.array(crops)).numpy().mean(0) for crops in (CIRCLES, ROUND))
    cosine = own @ other / np.linalg.norm(own) / np.linalg.norm(other)
    assert near[2][0][1] == pytest.approx(cosine, abs=1e-5)


def test_only_the_mixed_cluster_looks_like_two(desk: Desk):
    suggestions = {c.number: desk.surroundings.split(c) for c in desk.look().clusters}
    assert [number for number, found in suggestions.items() if found] == [4]
    found = suggestions[4]
    assert found is not None
    assert found.crops_M.tolist() in (MIXED[:12], MIXED[12:])


def test_acts_change_the_clusters_and_undo_takes_them_back(desk: Desk):
    desk.take([Name(CIRCLES[3], "circle"), Merge((CIRCLES[0], ROUND[0]))])
    assert names(desk) == ["cat", "dog", "circle", "novel 2", "novel 3"]
    circle = desk.look().clusters[2]
    assert sorted(circle.crops_M.tolist()) == sorted(CIRCLES + ROUND)
    desk.take([Split(tuple(MIXED[:5])), Reject(SQUARES[0])])
    assert [len(c.crops_M) for c in desk.look().clusters] == [6, 6, 20, 19, 5]
    assert desk.look().num_rejected == 12
    assert desk.look().holding(SQUARES[0]) is None
    desk.take([Undo(), Undo(), Undo(), Undo()])
    assert names(desk) == ["cat", "dog", "novel 1", "novel 2", "novel 3", "novel 4"]


def test_another_desk_sees_the_same(desk: Desk, shapes: str):
    desk.take([Name(CIRCLES[0], "circle")])
    assert names(Desk(open_run(shapes))) == names(desk)


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        ([Name(CIRCLES[0], "square"), Name(SQUARES[0], "Square")], "is another class's"),
        ([Name(CIRCLES[0], "dog")], "is another class's"),
        ([Merge((2, 10))], "known classes, and stay apart"),
        ([Reject(2)], "is a known class"),
        ([Name(9999, "circle")], "no crop 9999"),
        ([Reject(SQUARES[0]), Name(SQUARES[1], "square")], "its cluster was rejected"),
        ([Split(tuple(SQUARES))], "the whole cluster"),
        ([Split((0, 2))], "is labeled"),
        ([Undo()], "no act is left"),
    ],
)
def test_acts_that_cannot_be_are_refused_together(desk: Desk, acts: list, said: str):
    with pytest.raises(CurationError, match=said):
        desk.take([Name(ROUND[0], "ring"), Undo(), *acts])
    assert desk.look().acts == ()


def test_an_act_needs_only_what_it_is_about_to_be_as_it_was(desk: Desk):
    desk.take([Name(CIRCLES[0], "circle")], seen=0)
    desk.take([Name(SQUARES[0], "square")], seen=0)  # by one who has not seen the first
    desk.take([Merge((CIRCLES[0], ROUND[0]))], seen=2)
    with pytest.raises(Outdated, match="somebody else"):
        desk.take([Reject(ROUND[0])], seen=2)
    with pytest.raises(Outdated):
        desk.take([Undo()], seen=2)
    with pytest.raises(Outdated):
        desk.take([Undo()], seen=17)
    assert len(desk.look().acts) == 3


def test_desks_at_work_together_lose_nothing(desk: Desk, shapes: str):
    desks = [desk, Desk(open_run(shapes))]
    crops = [CIRCLES[0], SQUARES[0], MIXED[0], ROUND[0]]

    def name(turn: int) -> None:
        desks[turn % 2].take([Name(crops[turn % 4], f"shape {turn}")], seen=0)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(name, range(24)))
    found = {act.name for act in desk.look().acts if isinstance(act, Name)}
    assert found == {f"shape {turn}" for turn in range(24)}


def test_pages_have_some_clusters_each_in_the_order_asked_for(desk: Desk):
    def numbers(**query) -> list[int]:
        return [c["number"] for c in page_of(desk, desk.look(), Query(**query))["clusters"]]

    desk.take([Name(CIRCLES[0], "circle")])
    assert numbers() == [4, 2, 3, 5]
    assert numbers(order="doubtful") == [4, 2, 3, 5]
    assert numbers(order="number") == [2, 3, 4, 5]
    assert numbers(which="named") == [2]
    assert numbers(which="unnamed", order="number") == [3, 4, 5]
    assert numbers(which="known") == [0, 1]
    assert numbers(find=" CIRC") == [2]
    assert numbers(find="4", order="number") == [4, 5]  # number 4, and novel 4
    with pytest.raises(CurationError, match="is none of"):
        Query(order="color")  # pyright: ignore[reportArgumentType]


def test_a_page_says_what_there_is(desk: Desk):
    desk.take([Name(CIRCLES[0], "circle"), Reject(SQUARES[0])])
    page = page_of(desk, desk.look(), Query(page=7))
    json.dumps(page)
    assert page["page"] == 0  # the last there is
    assert page["undo"] == "reject"
    assert page["acts"] == ["name circle", "reject"]
    assert (page["discovered"], page["named"], page["known"]) == (3, 1, 2)
    assert page["rejected"] == 12
    mixed, circle, _ = page["clusters"]
    assert circle["best"] == CIRCLES[:8]
    assert circle["doubtful"] == CIRCLES[:7:-1]
    assert mixed["split"]["sizes"] == [12, 12]
    assert len(page["clusters"]) < PAGE


def test_pictures_are_read_a_shard_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    page_of(desk, desk.look(), Query())
    drawn: list[int] = []
    from gcdis_ray.naming import pictures

    read = pictures.read_crops
    monkeypatch.setattr(pictures, "read_crops", lambda t, c: drawn.append(1) or read(t, c))
    for crop in CIRCLES[:8] + MIXED[:12]:
        picture = desk.pictures.jpeg(crop)
        assert picture is not None
        assert picture.startswith(b"\xff\xd8")
    assert len(drawn) <= 3
    assert desk.pictures.jpeg(9999) is None


def test_a_damaged_shard_is_no_picture(desk: Desk, shapes: str):
    (part,) = Path(shapes, "crop").rglob("part-00000.parquet")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged"):
        desk.pictures.jpeg(0)
    assert desk.pictures.jpeg(MIXED[-1]) is not None


def test_what_runs_again_is_said(desk: Desk):
    def said(*acts) -> str:
        before = desk.look().acts
        return what_follows(desk.run, before, desk.take(acts).acts)

    assert said(Name(CIRCLES[0], "circle")) == "renamed: nothing to train"
    merged = said(Merge((CIRCLES[0], ROUND[0])))
    again = "label, segment, predict and evaluate will run again: gcdis run CONFIG"
    assert merged == f"merged: {again}"
    assert said(Name(CIRCLES[0], "ring"), Undo()) == "nothing changed"
    assert said(Undo()) == f"taken back: {again}"
    assert stages_after(desk.run) == ["label", "segment", "predict", "evaluate"]


def test_a_run_that_has_discovered_nothing_is_named(tmp_path: Path):
    storage = Path(write_run(tmp_path))
    for manifest in (storage / "discover").rglob("manifest.json"):
        manifest.unlink()
    with pytest.raises(ConfigError, match="discover has not been run"):
        Desk(open_run(str(storage)))


def test_acts_have_words():
    acts = [Name(1, "ring"), Merge((1, 2)), Split((1,)), Reject(1), Undo()]
    words = ["name ring", "merge of 2 clusters", "split of 1 crop", "reject", "undo"]
    assert [in_words(act) for act in acts] == words
