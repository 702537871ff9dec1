"""Candidates are judged by withheld labels, and the best one is trained by all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from small_discovery import WriteCrops, artifact
from stage_inputs import inputs_of

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.auto.trials import Trials
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.stages import discover, embed

CLASSES = [{"class_index": n, "category_id": 10 + n, "name": f"class {n}"} for n in range(3)]
SHARDS = [[0, 1, 2, 0, 1, 2, -1, 0, 1, 2], [-1, -1, -1, -1], [], [-1, -1, -1]]
SMALL = {
    "encoder": {"cached_views": 1},
    "training": {"steps": 4, "batch_size": 8, "micro_batches": 1},
    "snapshots": 2,
}


def discovered(work, **options: Any):
    work.map_shards(WriteCrops(SHARDS), [], gives=["crops"], args=[{}] * 4)
    work.write_json("classes", CLASSES)
    work.write_json("class_count", {"num_known": 3, "num_novel": 2, "num_classes": 5})
    embed.run(inputs_of(embed, artifact(work)), embed.Config.model_validate({}), work)
    placing = {"splits": 1, "stretches": [1.0], "dims": 4}
    config = discover.Config.model_validate({"method": "auto", "placing": placing, **options})
    discover.run(inputs_of(discover, artifact(work)), config, work)
    return artifact(work)


def test_the_best_on_withheld_labels_is_kept(local_work):
    found = discovered(local_work, auto={"candidates": ["simgcd"], "simgcd": SMALL})
    told = found.json("candidates")
    methods = [row["method"] for row in told["candidates"]]
    assert methods == ["k-means", "semi-supervised k-means", "linkage", "simgcd"]
    (chosen,) = (row["method"] for row in told["candidates"] if row["chosen"])
    assert found.json("method")["name"] == chosen
    assert found.table("assignments").num_rows == found.table("crops").num_rows
    assert discover.summary(found)[0].startswith("on withheld labels")


def test_placed_clusters_alone_are_a_choice(local_work):
    found = discovered(local_work, auto={"candidates": []})
    assert found.json("method")["name"] == "linkage"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"candidates": ["kmeans"]}, "kmeans is no method that auto trains"),
        ({"candidates": ["uno", "uno"]}, "named twice"),
        ({"uno": {"encoder": {"cached_views": 2}}}, "uno sees crops otherwise than simgcd"),
    ],
)
def test_what_cannot_be_compared_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        discover.Config.model_validate({"method": "auto", "auto": options})


def test_labels_are_withheld_once():
    with pytest.raises(ConfigError, match="auto withholds labels itself"):
        discover.Config.model_validate({"method": "auto", "hold_out": {"share": 0.5}})


def test_two_known_classes_are_too_few(local_work, monkeypatch):
    monkeypatch.setattr("test_auto.SHARDS", [[0, 1, 0, 1, 0, 1, -1], [-1, -1], [], [-1]])
    with pytest.raises(ConfigError, match="leaves fewer than two known classes"):
        discovered(local_work, auto={"candidates": []})


def trials(clusters: dict[str, list[int]]) -> Trials:
    """Of 40 crops of a hidden class and 40 of a visible one, in the clusters given."""
    labels = np.repeat([1, 0], 40)
    hold_out = HoldOut(hidden=(1,), visible=(0,), withheld=tuple(range(40, 80)))
    problem: Any = SimpleNamespace(hold_out=hold_out)
    found = Trials(problem, labels, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    found._clusters = {name: np.array(cluster) for name, cluster in clusters.items()}
    return found


def right(hidden: int, visible: int) -> list[int]:
    """So many crops of either class in its own cluster, the others alone in many."""
    strays = iter(range(2, 200))
    return [
        *([1] * hidden + [next(strays) for _ in range(40 - hidden)]),
        *([0] * visible + [next(strays) for _ in range(40 - visible)]),
    ]


@pytest.mark.parametrize(
    ("simgcd", "uno", "chosen"),
    [
        (right(30, 30), right(20, 20), "simgcd"),
        (right(30, 30), right(36, 36), "uno"),
        (right(25, 20), right(20, 20), "simgcd"),
        (right(20, 20), right(19, 21), "linkage"),
        (right(40, 0), right(20, 20), "linkage"),  # as much lost as won
    ],
)
def test_training_has_to_be_better_than_the_noise(simgcd, uno, chosen):
    clusters = {
        "linkage": right(20, 20), "k-means": right(40, 40), "simgcd": simgcd, "uno": uno
    }  # fmt: skip
    found = trials(clusters)
    assert found.chosen() == chosen
    rows = found.document(chosen)["candidates"]
    assert [row["method"] for row in rows if row["chosen"]] == [chosen]
    assert rows[0]["score"] == pytest.approx(0.5)  # linkage's


def test_a_difference_within_its_noise_decides_nothing():
    mixed = np.array(right(20, 20))
    other = mixed.copy()
    other[:14] = 300 + np.arange(14)  # 14 lost, 15 won
    other[20:35] = 1
    found = trials({"linkage": mixed.tolist(), "simgcd": other.tolist()})
    assert found.score("simgcd").mean > found.score("linkage").mean  # pyright: ignore
    assert found.chosen() == "linkage"
