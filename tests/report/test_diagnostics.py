"""Diagnostics of discovery: there when their numbers are, left out when not, true to them."""

import dataclasses
import itertools
import math
import re
from typing import Any

import numpy as np
import pytest
from synthetic_run import artifact, until
from tables import SCHEMAS

from gcdis_ray.report import diagnostic_figures as figures
from gcdis_ray.report import diagnostics, heat
from gcdis_ray.report.view import ClassView, RunView

TITLES = [
    "Frequent and rare classes",
    "Cluster sizes while training",
    "Temperature against class frequency",
    "Headness",
    "Reliability diagram: is the probability to be believed?",
    "Is trust well placed?",
]


def _panels(view: RunView, **changes: Any) -> dict[str, diagnostics.Panel]:
    metrics = {**(view.json("metrics") or {}), **changes}
    found = diagnostics.diagnostic_panels(view, metrics, view.classes())
    return {panel.title: panel for panel in found}


def _assignment(i: int, given: int, cluster: int, headness: float, temperature: float) -> dict:
    """A row of assignments, and of headness."""
    return {
        "crop_index": i,
        "class_index": given,
        "cluster_id": cluster,
        "topk_ids": [cluster],
        "topk_probabilities": [1.0],
        "embedding": [1.0],
        "temperature": temperature,
        "headness": headness,
    }


def _discovered(rows: list[dict], *, config=None, history=()) -> RunView:
    logged = [{"step": s, "name": "cluster_entropy", "value": v} for s, v in history]
    names = [
        {"class_index": k, "name": f"c{k}", "known": k == 0, "category_id": None} for k in range(4)
    ]
    assigned, heat = (
        [{column: row[column] for column in SCHEMAS[name].names} for row in rows]
        for name in ("assignments", "headness")
    )
    made = artifact(
        "discover",
        {"assignments": [assigned], "headness": [heat], "history": [logged]},
        {"discovered_classes": names},
        config,
    )
    return RunView("x", "gcdis", 0, {}, "", [], {"discover": made})


@pytest.fixture(scope="module")
def panels(finished_run: RunView) -> dict[str, diagnostics.Panel]:
    return _panels(finished_run)


def test_a_finished_run_has_every_figure_with_its_caption(panels, finished_page):
    assert list(panels) == TITLES
    for title, panel in panels.items():
        assert title in finished_page
        assert panel.caption.startswith("Look for")
        assert panel.caption.replace("'", "&#39;") in finished_page
        assert len(panel.caption) < 160
    assert '<section id="diagnostics">' in finished_page


def test_numbers_are_those_of_the_run(panels):
    thirds = panels["Frequent and rare classes"].svg
    for text in ("0.89", "0.78", "0.61", "0.13", "3 classes, 63 objects", "4 classes, 110 objects"):
        assert text in thirds
    assert "rank correlation +1.00" in panels["Temperature against class frequency"].svg
    assert "calibration error 0.087" in panels[TITLES[4]].svg
    trust = panels["Is trust well placed?"].svg
    assert "stability, AUROC 0.83" in trust
    assert "reliability, AUROC 0.74" in trust


def test_before_evaluation_only_what_needs_no_truth_is_shown(finished_run):
    panels = _panels(until(finished_run, 6))
    assert list(panels) == TITLES[1:4]
    assert "One dot per class as sorted" in panels["Temperature against class frequency"].caption
    assert "true classes" not in panels["Cluster sizes while training"].svg
    assert _panels(until(finished_run, 5)) == {}


def test_metrics_of_an_older_evaluation_fill_what_they_can(finished_run):
    metrics = finished_run.json("metrics")
    new = ("frequency", "num_training_crops", "headness", "temperature")
    panels = _panels(
        finished_run,
        discovery={k: v for k, v in metrics["discovery"].items() if "frequency" not in k},
        stability_bins=None,
        probability_bins=None,
        trust=None,
        per_class=[{k: v for k, v in row.items() if k not in new} for row in metrics["per_class"]],
    )
    assert list(panels) == [*TITLES[1:4], TITLES[5]]
    trust = panels["Is trust well placed?"].svg
    assert "reliability" in trust
    assert "stability" not in trust
    assert "AUROC" not in trust
    assert "One dot per class as sorted" in panels["Temperature against class frequency"].caption


def test_thirds_without_truth_draw_no_figure():
    nothing = {"head": None, "mid": None, "tail": None}
    assert diagnostics._thirds({"discovery": {"accuracy_by_frequency": nothing}}) is None
    panel = diagnostics._thirds({"discovery": {"accuracy_by_frequency": nothing | {"head": 0.5}}})
    assert panel is not None
    assert "0.50" in panel.svg
    assert ">tail" not in panel.svg
    assert "k-means on" not in panel.svg


def test_without_history_and_assignments_only_the_evaluation_speaks(finished_run):
    made = finished_run.artifacts["discover"]
    files = {k: v for k, v in made.manifest.files.items() if k == "discovered_classes"}
    bare = dataclasses.replace(made, manifest=dataclasses.replace(made.manifest, files=files))
    run = dataclasses.replace(finished_run, artifacts=finished_run.artifacts | {"discover": bare})
    assert list(_panels(run)) == [TITLES[0], *TITLES[4:]]


# ---------------------------------------------------------------- entropy


def test_entropy_is_averaged_within_epochs():
    steps, values = np.array([2, 4, 6, 8, 10]), np.array([1.0, 3.0, 5.0, 7.0, 9.0])
    times, means = diagnostics._by_epoch(steps, values, 4)
    assert times.tolist() == [1.0, 2.0, 2.5]
    assert means.tolist() == [2.0, 6.0, 9.0]
    assert diagnostics._by_epoch(steps, values, None) == (steps, values)


def test_entropy_is_drawn_over_epochs_or_steps_and_where_clustering_starts():
    rows = [_assignment(i, -1, i % 4, 0.1 * i, 0.1) for i in range(8)]
    history = [(s, math.log(4)) for s in range(1, 9)]
    options = {
        "training": {"batch_size": 4},
        "discovery": {"losses": {"clustering_from": 0.5}},
    }
    config = {"method": "gcdis", "gcdis": options}
    svg = _panels(_discovered(rows, config=config, history=history))[TITLES[1]].svg
    assert ">epoch<" in svg
    assert "clustering starts" in svg
    assert "1.39 to 1.39 nats" in svg
    svg = _panels(_discovered(rows, history=[*history, (9, math.nan)]))[TITLES[1]].svg
    assert ">step<" in svg
    assert "clustering starts" not in svg


# ---------------------------------------------------------------- headness and temperature


def test_classes_are_those_given_or_sorted_into():
    rows = [
        _assignment(0, 0, 3, 0.2, 0.1),  # labeled: its label counts, not its cluster
        _assignment(1, -1, 0, 0.4, 0.3),
        _assignment(2, -1, 1, 0.6, 0.5),
        _assignment(3, -1, 1, 0.0, 0.5),  # never visited
    ]
    found = heat.read_heat(_discovered(rows))
    assert found is not None
    assert found.class_index.tolist() == [0, 0, 1, 1]
    thirds = {name: values.tolist() for name, values in found.thirds().items()}
    assert thirds == {
        "head": pytest.approx([0.2, 0.4]),
        "mid": pytest.approx([0.6]),
        "tail": [],
    }
    classes = [ClassView(k, f"c{k}", k == 0) for k in range(3)]
    zero, one = heat.assigned_class_heat(found, classes)
    assert (zero.name, zero.known, zero.num_crops) == ("c0", True, 2)
    assert (zero.headness, zero.temperature) == (pytest.approx(0.3), pytest.approx(0.2))
    assert (one.num_crops, one.headness) == (2, pytest.approx(0.3))


def test_one_temperature_for_all_is_said_not_drawn():
    rows = [_assignment(i, -1, i % 4, 0.1 + 0.01 * i, 0.07) for i in range(8)]
    panel = _panels(_discovered(rows))["Temperature against class frequency"]
    assert "one temperature" in panel.caption
    assert not panel.wide
    assert panel.svg.count("crops of the class") == 1


def test_a_run_that_measured_no_headness_has_neither_figure():
    rows = [_assignment(i, -1, i % 4, 0.0, 0.07) for i in range(8)]
    assert _panels(_discovered(rows)) == {}


def test_figures_take_hostile_names_and_many_classes():
    sizes = [10**6 // (k + 1) for k in range(3_000)]
    classes = [
        heat.ClassHeat(f"<b>$x^{k}$", k % 2 == 0, n, 0.1, 0.1 + 1 / n) for k, n in enumerate(sizes)
    ]
    svg = figures.heat_figure(classes, ["temperature"])
    assert "&lt;b&gt;$x^0$" in svg
    assert "<b>" not in svg
    assert svg.count("&lt;b&gt;") == 24
    assert "mathdefault" not in svg  # a logarithmic axis has plain numbers
    assert "10,000" in svg


def test_correctness_bars_are_as_wide_as_they_hold_crops():
    bins = [{"num_crops": 30, "accuracy": 0.25}, {"num_crops": 10, "accuracy": 1.0}]
    svg = figures.correctness_figure({"stability": bins}, {"stability": None}, None)
    widths = []
    for path in re.findall(r'<path d="M ([^"]+) z ?"', svg):
        xs = [float(x) for x in re.findall(r"(?:^|L )([\d.]+)", path)]
        if len(xs) == 4:
            widths.append(max(xs) - min(xs))
    assert any(a == pytest.approx(3 * b, rel=1e-3) for a, b in itertools.pairwise(widths))
    assert "0.25" in svg
    assert "AUROC" not in svg
