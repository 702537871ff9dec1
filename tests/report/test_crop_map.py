"""The map: crops as points in the colours of their classes, each with its picture, no script."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
from page_elements import Elements
from synthetic_run import artifact

from gcdis_ray.errors import ConfigError
from gcdis_ray.report import crop_map, projection
from gcdis_ray.report.crop_map import map_sample
from gcdis_ray.report.missed_section import missed_section


@pytest.fixture(scope="module")
def drawn(finished_page: str) -> Elements:
    start = finished_page.index('<svg class="figure points"')
    return Elements(finished_page[start : finished_page.index("</div>", start)])


def test_every_crop_of_a_class_is_a_point_of_both_maps_with_a_place_on_the_sheet(
    drawn, finished_run
):
    crops = finished_run.table("crops").num_rows
    points = [a for a in drawn.of("g") if (a.get("class") or "").startswith("p ")]
    assert len(points) == crops
    assert len(drawn.of("circle")) == 2 * crops
    assert len(drawn.of("use")) == crops
    (sheet,) = drawn.of("image")
    corners = {tuple(a["viewbox"].split()[:2]) for a in drawn.of("svg") if a.get("class") == "v"}
    assert len(corners) == crops
    assert all(int(x) < int(sheet["width"]) and int(y) < int(sheet["height"]) for x, y in corners)
    labeled = sum(c >= 0 for c in finished_run.table("crops").read()["class_index"].to_pylist())
    assert sum("given" in (a["class"] or "") for a in points) == labeled
    assert "new-1" in "".join(drawn.text)


def test_of_many_crops_a_sample_is_spread_evenly(monkeypatch):
    monkeypatch.setattr(crop_map, "MAX_POINTS", 4)
    assert map_sample(np.array([0, -1, 1, 1, 2, 0, 1, 2, 2])).tolist() == [0, 3, 5, 7]
    assert map_sample(np.array([-1, 3])).tolist() == [1]


def test_cards_tell_the_nearest_known_classes_and_what_to_do(finished_page):
    card = finished_page[finished_page.index('id="class-5"') :]
    card = card[: card.index("</article>")]
    assert card.count("<b>", card.index("nearest known:")) >= 5
    assert 'class="say v-' in card


def test_umap_that_is_not_there_is_a_mistake_with_its_mending(monkeypatch):
    monkeypatch.setattr(projection, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"gcdis-ray\[umap\]"):
        projection.project(np.eye(4), "umap")


@pytest.mark.skipif(find_spec("umap") is None, reason="the extra umap is not installed")
@pytest.mark.thorough
def test_umap_is_the_same_for_equal_rows():
    rows = np.random.default_rng(0).normal(size=(60, 8))
    first, again = (projection.project(rows, "umap") for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (60, 2)


def test_what_was_missed_is_told_by_class_and_size_and_shown(finished_run):
    rows = [
        dict(split="unlabeled", category_id=c, objects=10, crowds=0, with_proposal=10 - c)
        for c in (1, 6)
    ] + [dict(split="validation", category_id=2, objects=5, crowds=0, with_proposal=0)]
    recall = dict(kind="mask", group="all", objects=[20, 12, 8, 0], met=[9] * 80)
    counted = artifact(
        "evaluate", {"class_objects": [rows], "proposal_recall": [[recall]]}, {"metrics": {}}
    )
    artifacts = dict(finished_run.artifacts)
    del artifacts["evaluate"]
    proposals = finished_run.artifacts["propose"].table("proposals")
    kept = [shard.to_pylist()[::2] for shard in proposals.iter_shards()]
    artifacts["propose"] = artifact("propose", {"proposals": kept}, {})
    view = dataclasses.replace(finished_run, artifacts={**artifacts, "evaluate": counted})
    truth = view.artifacts["ground_truth"].table("truth_instances").read().to_pylist()
    images = view.artifacts["ingest"].table("images")
    shards: list[list[dict]] = []
    for shard in images.iter_shards(["image_id"]):
        here = set(shard["image_id"].to_pylist())
        shards.append([row for row in truth if row["image_id"] in here])
    names = view.artifacts["ground_truth"].json("categories")
    sealed = artifact("ground_truth", {"truth_instances": shards}, {"categories": names})
    view = dataclasses.replace(view, artifacts={**view.artifacts, "ground_truth": sealed})
    body = missed_section(view).body
    assert callable(body)
    section = str(body())
    text = " ".join(" ".join(Elements(section).text).split())
    assert "7 of 20 true objects in unlabeled images (35 %)" in text
    assert "small 12 3 25 %" in text
    assert text.index("5 10 6 60 %") < text.index("0 10 1 10 %")
    assert len(Elements(section).of("img")) == 4
    assert "missed objects" in str(Elements(section).of("img")[0]["alt"])
