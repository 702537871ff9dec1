"""Every chart that a run can fill, as far as it has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.report import figures, findings
from gcdis_ray.report.assigned import Crops
from gcdis_ray.report.diagnostics import diagnostic_panels
from gcdis_ray.report.series import read_history, sample_points
from gcdis_ray.report.view import ClassView, RunView

_MAX_POINTS = 4_000  # of an embedding map
_TRAINED = ("propose", "discover", "segment")


def run_charts(
    view: RunView, metrics: Mapping[str, Any], classes: Sequence[ClassView], crops: Crops | None
) -> dict[str, Any]:
    """Every chart that the run can fill by now; the others are absent."""
    charts: dict[str, Any] = {"training": {}}
    if count := view.json("count", "class_count"):
        truth = findings.true_class_count(view, metrics)
        charts["count"] = figures.class_count_figure(count, truth)
        charts["count_method"] = str(count.get("method", ""))
        charts["count_warning"] = count.get("warning")
        charts["count_others"] = findings.other_class_counts(count)
    if accuracy := findings.dig(metrics, "discovery", "accuracy"):
        baseline = findings.dig(metrics, "discovery", "kmeans_accuracy") or {}
        charts["accuracy"] = figures.accuracy_figure(accuracy, baseline)
    if crops is not None and len(crops.crop_index):
        indices, counts = np.unique(crops.class_index, return_counts=True)
        sizes = dict(zip(indices.tolist(), counts.tolist(), strict=True))
        charts["sizes"] = figures.size_figure(classes, sizes)
        charts["trust"] = figures.trust_figure(_trust_columns(crops, classes))
        charts["map"], charts["map_points"] = _embedding_map(view, classes, crops)
    charts["diagnostics"] = diagnostic_panels(view, metrics, classes)
    for stage in _TRAINED:
        if history := read_history(view, stage):
            charts["training"][stage] = figures.training_figure(stage, history)
    return charts


def _trust_columns(
    crops: Crops, classes: Sequence[ClassView]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    novel = np.isin(crops.class_index, [c.class_index for c in classes if not c.known])
    columns = {"probability": crops.probability}
    if not np.isnan(crops.reliability).all():
        columns |= {"stability": crops.stability, "reliability": crops.reliability}
    finite = {title: ~np.isnan(values) for title, values in columns.items()}
    return {
        title: (values[~novel & finite[title]], values[novel & finite[title]])
        for title, values in columns.items()
    }


def _embedding_map(
    view: RunView, classes: Sequence[ClassView], crops: Crops
) -> tuple[Markup | None, int]:
    """Crops before and after discovery, in the colours of the classes they ended in."""
    final = dict(zip(crops.crop_index.tolist(), crops.class_index.tolist(), strict=True))
    panels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for title, stage, member in (
        ("before: frozen embedding", "embed", "embeddings"),
        ("after: discovery", "discover", "assignments"),
    ):
        sampled = sample_points(view, stage, member, _MAX_POINTS)
        if sampled is not None:
            index, points = sampled
            unlabeled = np.array([i in final for i in index.tolist()])
            colors = np.array([final[i] for i in index[unlabeled].tolist()], dtype=np.int64)
            panels[title] = (points[unlabeled], colors)
    if not panels:
        return None, 0
    return figures.embedding_figure(panels, classes), max(len(p) for p, _ in panels.values())
