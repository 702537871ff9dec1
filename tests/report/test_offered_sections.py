"""The page takes what stages offer, whatever they are called and whatever they leave out."""

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from markupsafe import Markup
from page_elements import Elements
from synthetic_run import artifact, make_run, page_of

from gcdis_ray.recipes.gcdis import RECIPE
from gcdis_ray.report.diagnostics import diagnostic_panels
from gcdis_ray.report.page import write_report
from gcdis_ray.report.section import Section, Tile, arrange
from gcdis_ray.report.series import quarantine_summary
from gcdis_ray.report.view import RunView
from gcdis_ray.run.report import offered_sections
from gcdis_ray.store.artifacts import Artifact

OURS: dict[str, Any] = {node.name: node.stage for node in RECIPE.nodes}
OTHER_SCORES = {"miou": 0.5, "per_class": {"cat": 0.4}, "clusters": 3, "trust": [1], "protocol": 7}


@pytest.fixture(scope="module")
def small_run() -> RunView:
    return make_run(num_images=8)


def _with(view: RunView, **artifacts: Artifact) -> RunView:
    return dataclasses.replace(view, artifacts={**view.artifacts, **artifacts})


def _without(view: RunView, *names: str) -> RunView:
    left = {name: made for name, made in view.artifacts.items() if name not in names}
    rows = [row for row in view.stages if row["name"] not in names]
    return dataclasses.replace(view, artifacts=left, stages=rows)


def _score(view: RunView) -> Sequence[Section]:
    scores = view.json("metrics")
    body = Markup("<p>mIoU <b>{}</b> of {}</p>").format(scores["miou"], "<all>")
    return [Section("scores", "Scores", body, tiles=[Tile("mIoU", "0.50", "all classes")])]


FOREIGN = {"score": SimpleNamespace(sections=_score)}


# ---------------------------------------------------------------- what recipes may leave out


def test_a_recipe_without_count_has_a_page(small_run):
    page = page_of(_without(small_run, "count"))
    assert "classes estimated" not in page
    assert "Number of classes" not in page
    assert "Clustering accuracy" in page
    assert Elements(page).misnested == []


def test_a_recipe_whose_scores_have_another_shape_has_a_page(small_run):
    score = artifact("score", {}, {"metrics": OTHER_SCORES})
    view = _with(_without(small_run, "evaluate", "count"), score=score)
    stages = {**OURS, **FOREIGN}
    page = write_report(view, offered_sections(stages, view)).page
    parsed = Elements(page)
    assert parsed.misnested == []
    ids = {a["id"] for _, a in parsed.found if "id" in a}
    assert {"classes", "pictures", "clusters", "diagnostics", "training", "scores"} <= ids
    assert not ids & {"discovery", "detection"}
    assert "This run is not finished" not in page


def test_an_evaluation_without_discovery_has_a_page(small_run):
    metrics = {"detection": {"mask_ap": {"all": 0.4, "known": None, "novel": None}}}
    view = _without(small_run, "count", "discover", "label")
    page = page_of(_with(view, evaluate=artifact("evaluate", {}, {"metrics": metrics})))
    assert "mask AP" in page
    assert 'id="detection"' in page
    assert 'id="discovery"' not in page


def test_an_evaluation_reads_its_own_scores_not_later_ones(small_run):
    view = _with(small_run, score=artifact("score", {}, {"metrics": OTHER_SCORES}))
    assert view.json("metrics") == OTHER_SCORES
    assert view.until("evaluate").json("metrics") == small_run.json("metrics")
    tiles = [t.label for s in offered_sections({**OURS, **FOREIGN}, view) for t in s.tiles]
    assert {"accuracy, novel classes", "mIoU"} <= set(tiles)


def test_a_method_without_headness_has_no_figures_of_it_and_any_config(small_run):
    made = small_run.artifacts["discover"]
    files = {name: records for name, records in made.manifest.files.items() if name != "headness"}
    for config in ({"method": "other", "other": [1]}, {"method": "other", "other": None}, {}):
        manifest = dataclasses.replace(made.manifest, files=files, config=config)
        view = _with(small_run, discover=dataclasses.replace(made, manifest=manifest))
        panels = diagnostic_panels(view, {}, view.classes())
        assert [panel.title for panel in panels] == ["Cluster sizes while training"]
        assert "clustering starts" not in panels[0].svg
        assert ">step<" in panels[0].svg


# ---------------------------------------------------------------- what other stages bring


def test_a_stage_of_another_package_is_on_the_page_with_its_tile():
    score = artifact("score", {}, {"metrics": OTHER_SCORES})
    view = RunView("mine", "toy", 0, {}, "", [], {"score": score})
    page = write_report(view, offered_sections(FOREIGN, view)).page
    assert '<li><a href="#scores">Scores</a></li>' in page
    assert "<p>mIoU <b>0.5</b> of &lt;all&gt;</p>" in page
    assert '<span class="value">0.50</span><span class="label">mIoU</span>' in page
    assert page.index('id="scores"') < page.index('id="stages"')
    assert "<h1>mine</h1>" in page


def test_a_section_tells_all_it_says():
    section = Section(
        "mine",
        "Mine",
        "only <text>",
        heading="All of mine",
        sentences=["It went <well>."],
        headline="Much was found",
        aside=Markup("<p>beside</p>"),
        definitions=[("mIoU", "mean over classes")],
        style=".mine{color:red}",
    )
    view = RunView("x", "toy", 0, {}, "", [], {"a": artifact("a", {}, {})})
    page = write_report(view, [section]).page
    for text in (
        "<h2>All of mine</h2>\nonly &lt;text&gt;",
        "It went &lt;well&gt;.",
        "<h1>Much was found</h1>",
        "<p>beside</p>",
        "mean over classes",
        ".mine{color:red}",
    ):
        assert text in page


def test_stages_that_are_not_done_are_not_asked():
    def fail(view: RunView) -> Sequence[Section]:
        raise AssertionError

    view = RunView("x", "toy", 0, {}, "", [], {"done": artifact("done", {}, {})})
    stages: dict[str, Any] = {"done": SimpleNamespace(), "later": SimpleNamespace(sections=fail)}
    assert offered_sections(stages, view) == []
    assert "Nothing has been computed yet" in write_report(_without(view, "done")).page


def test_the_last_of_an_anchor_counts_and_the_others_are_never_made():
    def fail() -> str:
        raise AssertionError

    first = Section("a", "A", fail, aside=fail, sentences=["early"])
    between, last = Section("b", "B", lambda: "made"), Section("a", "A again", "late")
    assert arrange([first, between, last]) == [last, dataclasses.replace(between, body="made")]


# ---------------------------------------------------------------- members, whoever gives them


def test_the_last_node_that_has_a_member_gives_it(small_run):
    again = artifact("again", {}, {"class_count": {"num_classes": 3}})
    view = _with(small_run, again=again)
    assert view.json("class_count") == {"num_classes": 3}
    assert view.of("class_count") is again
    assert view.table("nothing") is view.json("nothing") is view.of("nothing") is None
    assert list(view.each("history")) == ["propose", "discover", "segment"]


def test_curves_and_records_set_aside_are_shown_for_every_node(small_run):
    row = {"split": "labeled", "uri": "e.png", "reason": "no mask"}
    history = [{"step": s, "name": "loss", "value": 1.0 / (s + 1)} for s in range(5)]
    more = artifact("warm-up", {"history": [history], "quarantine": [[row]]}, {})
    view = _with(_without(small_run, *OURS), **{"warm-up": more})
    assert "<h3>warm-up</h3>" in write_report(view).page
    both = quarantine_summary(_with(small_run, more=more))
    assert both is not None
    assert both["total"] == 4
