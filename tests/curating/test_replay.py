"""What becomes of classes when people name, merge, split and reject them."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gcdis_ray.curating.acts import Merge, Name, Note, Reject, Split, Undo, canonical, moves
from gcdis_ray.curating.acts import parse_log as parse
from gcdis_ray.curating.replay import replay
from gcdis_ray.errors import CurationError

KNOWN = ("cat", "dog")


def class_table(num_classes: int) -> list[dict]:
    return [
        {
            "class_index": k,
            "name": KNOWN[k] if k < 2 else f"novel {k - 1}",
            "known": k < 2,
            "category_id": 10 + k if k < 2 else None,
        }
        for k in range(num_classes)
    ]


#           crop  0  1  2  3  4  5  6  7  8  9 10 11
CLUSTER = np.array([0, 0, 1, 2, 2, 2, 3, 3, 4, 4, 2, 0])
LABEL = np.array([0, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, -1])
CROPS = np.arange(12)[::-1]  # in another order than their numbers
CLASSES = class_table(5)


def curated(*acts):
    order = CROPS
    found = replay(acts, CROPS, CLUSTER[order], CLASSES, LABEL[order])
    return found, found.cluster_N[np.argsort(order)].tolist()


def names(found) -> list[str]:
    return [row["name"] for row in found.classes]


def test_without_acts_nothing_changes():
    found, cluster = curated()
    assert cluster == CLUSTER.tolist()
    assert found.cluster_N.dtype == np.int32
    assert found.classes == [{**row, "clusters": [row["class_index"]]} for row in CLASSES]
    assert (found.names, found.rejected) == ({}, [])


def test_a_name_changes_no_crop():
    found, cluster = curated(Name(6, "zebra"), Name(7, "Zebra"))
    assert cluster == CLUSTER.tolist()
    assert names(found) == ["cat", "dog", "novel 1", "Zebra", "novel 3"]
    assert found.names == {3: "Zebra"}


def test_merged_novel_classes_keep_the_lowest_id_and_the_others_move_up():
    found, cluster = curated(Name(6, "zebra"), Merge((6, 3)))
    assert cluster == [0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 2, 0]
    assert [(row["name"], row["clusters"]) for row in found.classes[2:]] == [
        ("zebra", [2, 3]),
        ("novel 3", [4]),
    ]


def test_a_class_merged_with_a_known_one_is_the_known_one():
    found, cluster = curated(Name(8, "zebra"), Merge((9, 2, 4)))
    assert cluster == [0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 1, 0]
    assert names(found) == ["cat", "dog", "novel 2"]
    assert found.classes[1]["clusters"] == [1, 2, 4]
    assert found.classes[1]["category_id"] == 11


def test_a_split_part_is_a_class_without_an_output():
    found, cluster = curated(Name(3, "zebra"), Split((5,)), Name(5, "horse"))
    assert cluster == [0, 0, 1, 2, 2, 5, 3, 3, 4, 4, 2, 0]
    assert names(found)[2:] == ["zebra", "novel 2", "novel 3", "horse"]
    assert found.classes[5] == {
        "class_index": 5, "name": "horse", "known": False, "category_id": None, "clusters": [],
    }  # fmt: skip
    assert names(curated(Split((5,)), Split((4,)))[0])[5:] == ["novel 4", "novel 5"]


def test_a_split_may_take_crops_out_of_a_known_class():
    assert curated(Split((1,)))[1][:2] == [0, 5]


def test_rejected_crops_are_in_no_class_and_labeled_ones_go_back():
    found, cluster = curated(Reject(4))
    assert cluster == [0, 0, 1, -1, -1, -1, 2, 2, 3, 3, 1, 0]
    assert names(found) == ["cat", "dog", "novel 2", "novel 3"]
    assert found.rejected == [2]


@pytest.mark.parametrize(
    ("acts", "what"),
    [
        ([Name(6, "zebra"), Name(8, "Zebra")], "the name 'Zebra' is another class's"),
        ([Name(6, "DOG")], "the name 'DOG' is another class's"),
        ([Name(6, "novel 3")], "the name 'novel 3' is another class's"),
        ([Name(6, "Novel 77")], "'Novel 77' is how classes without a name are told apart"),
        ([Name(1, "lynx")], "a known class keeps its name, 'cat'"),
        ([Merge((1, 2))], "'cat' and 'dog' are known classes, and stay apart"),
        ([Merge((1, 6)), Merge((7, 2))], "'cat' and 'dog' are known classes"),
        ([Reject(2)], "'dog' is a known class"),
        ([Split((3, 10))], "crop 10 is labeled"),
        ([Split((8, 9))], "the whole cluster 'novel 3'"),
        ([Name(8, "zebra"), Split((8,)), Split((9,))], "the whole cluster 'zebra'"),
        ([Split((3, 6))], "several clusters: 'novel 1', 'novel 2'"),
        ([Reject(99)], "there is no crop 99"),
        ([Reject(3), Name(4, "zebra")], "crop 4 is in no class"),
        ([Reject(3), Split((5,))], "crop 5 is in no class"),
        ([Split((3,)), Reject(3), Merge((3, 6))], "crop 3 is in no class"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_named_with_its_place(acts, what):
    acts[-1] = type(acts[-1])(**{**vars(acts[-1]), "note": Note("log.json, line 7")})
    with pytest.raises(CurationError) as error:
        curated(*acts)
    assert what in error.value.what
    assert error.value.where == "log.json, line 7"
    assert curated(*acts, Undo())  # taken back, it does no harm


def test_a_name_is_free_again_when_its_class_is_gone():
    assert curated(Name(6, "zebra"), Reject(7), Name(8, "zebra"))[0].names == {3: "zebra"}
    merged = curated(Name(3, "a"), Name(6, "b"), Merge((3, 6)), Name(8, "b"))[0]
    assert merged.names == {2: "a", 3: "b"}


def test_another_discovery_of_the_same_crops_is_sorted_by_the_same_log():
    acts = parse('{"act": "merge", "crops": [3, 8]}\n{"act": "name", "crop": 3, "name": "z"}', "l")
    other = np.array([0, 0, 1, 3, 3, 3, 4, 4, 2, 2, 3, 0])
    found = replay(acts, np.arange(12), other, CLASSES, LABEL)
    assert found.cluster_N.tolist() == [0, 0, 1, 2, 2, 2, 3, 3, 2, 2, 2, 0]
    assert found.names == {2: "z"}


@st.composite
def discoveries(draw):
    """Crops in clusters, some of them labeled, and acts that follow one another."""
    num_classes, num_crops = draw(st.integers(2, 7)), draw(st.integers(1, 24))
    column = lambda low, high: st.lists(  # noqa: E731
        st.integers(low, high), min_size=num_crops, max_size=num_crops
    )
    cluster = np.array(draw(column(0, num_classes - 1)))
    label = np.array(draw(column(-3, 1))).clip(-1)
    given = np.arange(num_crops), cluster, class_table(num_classes), label
    crop = st.integers(0, num_crops - 1)
    act = st.one_of(
        st.builds(Name, crop, st.sampled_from(["zebra", "horse", "yak"])),
        st.builds(Reject, crop),
        st.builds(Merge, st.lists(crop, min_size=2, max_size=3, unique=True).map(tuple))
        if num_crops > 1
        else st.builds(Reject, crop),
        st.builds(Split, st.lists(crop, min_size=1, max_size=4, unique=True).map(tuple)),
        st.builds(Undo),
    )
    acts = []
    for one in draw(st.lists(act, max_size=10)):
        try:
            replay([*acts, one], *given)
        except CurationError:
            continue
        acts.append(one)
    return acts, given


@given(discoveries())
def test_valid_acts_leave_every_crop_in_one_class_or_rejected(case):
    acts, (_, cluster, classes, label) = case
    found = replay(acts, *case[1])
    assert [row["class_index"] for row in found.classes] == list(range(len(found.classes)))
    known = [{k: v for k, v in row.items() if k != "clusters"} for row in found.classes[:2]]
    assert known == classes[:2]
    assert not any(row["known"] for row in found.classes[2:])
    assert len({row["name"].casefold() for row in found.classes}) == len(found.classes)
    assert found.cluster_N.min() >= -1
    assert found.cluster_N.max() < len(found.classes)
    assert (found.cluster_N[label >= 0] >= 0).all()
    outputs = Counter(k for row in found.classes for k in row["clusters"])
    assert outputs + Counter(found.rejected) == Counter(range(len(classes)))
    # a crop that no split took out of its cluster is where its cluster went
    went = {k: row["class_index"] for row in found.classes for k in row["clusters"]}
    taken = {crop for act in acts if isinstance(act, Split) for crop in act.crops}
    for crop in set(range(len(cluster))) - taken:
        back = label[crop] if label[crop] >= 0 else -1
        assert found.cluster_N[crop] == went.get(cluster[crop], back)


@given(discoveries())
def test_all_acts_taken_back_are_none(case):
    acts, given_ = case
    undone = [*acts, *[Undo()] * (sum(1 if not isinstance(a, Undo) else -1 for a in acts))]
    found, plain = replay(undone, *given_), replay([], *given_)
    assert np.array_equal(found.cluster_N, plain.cluster_N)
    assert (found.classes, found.names) == (plain.classes, plain.names)


@given(discoveries())
def test_the_form_in_a_key_leads_to_the_same_classes(case):
    acts, given_ = case
    lines = "\n".join(map(json.dumps, canonical(moves(acts))))
    found, ordered = replay(moves(acts), *given_), replay(parse(lines, "key"), *given_)
    assert np.array_equal(found.cluster_N, ordered.cluster_N)
    assert found.classes == ordered.classes


def test_crops_in_no_class_stay_there():
    cluster_N, label_N = np.array([0, 2, -1, 3, 2]), np.full(5, -1)

    def curated_of(*acts):
        return replay(acts, np.arange(5), cluster_N, class_table(4), label_N)

    assert curated_of().cluster_N.tolist() == cluster_N.tolist()
    assert curated_of().rejected == []
    assert curated_of(Merge((1, 3))).cluster_N.tolist() == [0, 2, -1, 2, 2]
    assert curated_of(Split((4,))).cluster_N.tolist() == [0, 2, -1, 3, 4]
    with pytest.raises(CurationError, match="crop 2 is in no class"):
        curated_of(Merge((2, 3)))
