"""The diagnostics of discovery: which figures a run can fill by now, and what to look for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.metrics.frequency import THIRDS
from gcdis_ray.report import diagnostic_figures as figures
from gcdis_ray.report.findings import dig, plural
from gcdis_ray.report.heat import assigned_class_heat, read_heat, true_class_heat
from gcdis_ray.report.html import fill
from gcdis_ray.report.section import DIAGNOSTICS, Section
from gcdis_ray.report.series import read_history
from gcdis_ray.report.view import ClassView, RunView
from gcdis_ray.store.artifacts import Artifact


@dataclass(frozen=True)
class Panel:
    """One figure with its title and the line that says what to look for."""

    title: str
    caption: str
    svg: Markup
    wide: bool = False


def diagnostics_section(view: RunView, metrics: Mapping[str, Any] | None = None) -> Section:
    """Every figure that the run can fill by now.

    Args:
        metrics: of an evaluation, which knows the true classes.
    """

    def body() -> Markup:
        panels = diagnostic_panels(view, metrics or {}, view.classes())
        return fill("diagnostics", panels=panels) if panels else Markup("")

    return Section(
        "diagnostics", "Diagnostics", body, DIAGNOSTICS, heading="How discovery came about"
    )


def diagnostic_panels(
    view: RunView, metrics: Mapping[str, Any], classes: Sequence[ClassView]
) -> list[Panel]:
    """In reading order; figures whose numbers a run does not have are left out."""
    offered = (
        _thirds(metrics),
        _entropy(view, metrics, classes),
        *_heat(view, metrics, classes),
        _calibration(metrics),
        _correctness(metrics),
    )
    return [panel for panel in offered if panel is not None]


def _thirds(metrics: Mapping[str, Any]) -> Panel | None:
    found = dig(metrics, "discovery", "accuracy_by_frequency") or {}
    if all(found.get(third) is None for third in THIRDS):
        return None
    notes = {}
    for third in THIRDS:
        rows = [r for r in metrics.get("per_class") or [] if r.get("frequency") == third]
        if rows:
            objects = sum(row.get("num_objects") or 0 for row in rows)
            notes[third] = f"{plural(len(rows), 'class', 'classes')}, {plural(objects, 'object')}"
    return Panel(
        "Frequent and rare classes",
        "Look for a tail, the classes with the fewest objects, not far behind the head.",
        figures.frequency_figure(
            found, dig(metrics, "discovery", "kmeans_accuracy_by_frequency") or {}, notes
        ),
    )


def _entropy(
    view: RunView, metrics: Mapping[str, Any], classes: Sequence[ClassView]
) -> Panel | None:
    made = view.of("assignments")
    if made is None or not made.has("history"):
        return None
    steps, values = read_history(made).get("cluster_entropy", (np.zeros(0),) * 2)
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if not len(steps):
        return None
    options = _method_options(made)
    per_epoch = _steps_per_epoch(made, options)
    times, means = _by_epoch(steps, values, per_epoch)
    size, what = len(classes), plural(len(classes), "class", "classes")
    if made.has("pruning"):  # what is drawn are outputs before it
        size = made.json("pruning")["num_outputs"]
        what = plural(size, "output")
    marks = {f"{what}, all equal": math.log(size)} if size else {}
    true_sizes = np.array([row.num_crops for row in true_class_heat(metrics)], dtype=float)
    if len(true_sizes) > 1:
        share = true_sizes / true_sizes.sum()
        marks["true classes"] = float(-(share * np.log(share)).sum())
    first = _number(options, "discovery", "losses", "clustering_from")
    starts = None if not first else first * float(steps[-1]) / (per_epoch or 1)
    return Panel(
        "Cluster sizes while training",
        "Look for a level end near the true classes: far below, clusters have died; above, the "
        "long tail is flattened.",
        figures.entropy_figure(times, means, "epoch" if per_epoch else "step", marks, starts),
    )


def _method_options(made: Artifact) -> Any:
    """Options of the method that a discovery took; None where its config knows no methods."""
    config = made.manifest.config
    return config.get(str(config.get("method")))


def _number(options: Any, *path: str) -> float | None:
    """Of some method's options, which may have none of that name, or something else there."""
    found = dig(options, *path)
    return found if isinstance(found, int | float) else None


def _steps_per_epoch(made: Artifact, options: Any) -> int | None:
    """Steps that a discovery takes over all crops, if its config tells."""
    batch, num_crops = (
        _number(options, "training", "batch_size"),
        made.table("assignments").num_rows,
    )
    return math.ceil(num_crops / batch) if batch and num_crops else None


def _by_epoch(
    steps: np.ndarray, values: np.ndarray, per_epoch: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Means per epoch at the epoch's last logged step; as logged where epochs are unknown."""
    if per_epoch is None:
        return steps, values
    _, place = np.unique(np.ceil(steps / per_epoch), return_inverse=True)
    means = np.bincount(place, values) / np.bincount(place)
    last = np.array([steps[place == n].max() for n in range(len(means))])
    return last / per_epoch, means


def _heat(
    view: RunView, metrics: Mapping[str, Any], classes: Sequence[ClassView]
) -> tuple[Panel | None, Panel | None]:
    heat = read_heat(view)
    if heat is None:
        return None, None
    histogram = None
    if (heat.headness > 0).any():
        histogram = Panel(
            "Headness",
            "Look for crops of large classes (head) to the right of those of small ones (tail); "
            "temperature rises over the grey.",
            figures.headness_figure(heat.thirds()),
        )
    true_classes = true_class_heat(metrics)
    shown = true_classes or assigned_class_heat(heat, classes)
    spread = {"headness": np.ptp(heat.headness), "temperature": np.ptp(heat.temperature)}
    panels = [quantity for quantity, width in spread.items() if width > 1e-6]
    if len(shown) < 2 or not panels:
        return None, histogram
    what = "true class" if true_classes else "class as sorted"
    note = "" if "temperature" in panels else " All crops have one temperature here."
    scatter = Panel(
        "Temperature against class frequency",
        "Look for a rise to the right: frequent classes warm, rare ones cold; a level cloud says "
        f"that headness knows nothing of frequency. One dot per {what}.{note}",
        figures.heat_figure(shown, panels),
        wide=len(panels) > 1,
    )
    return scatter, histogram


def _calibration(metrics: Mapping[str, Any]) -> Panel | None:
    bins = [b for b in metrics.get("probability_bins") or [] if b["num_crops"]]
    if not bins:
        return None
    return Panel(
        "Reliability diagram: is the probability to be believed?",
        "Look for dots on the dashed line: below it, labels are right less often than they claim.",
        figures.calibration_figure(bins, dig(metrics, "trust", "calibration_error")),
    )


def _correctness(metrics: Mapping[str, Any]) -> Panel | None:
    panels = {}
    for title in ("stability", "reliability"):
        if bins := [b for b in metrics.get(f"{title}_bins") or [] if b["num_crops"]]:
            panels[title] = bins
    if not panels:
        return None
    return Panel(
        "Is trust well placed?",
        "Look for bars that rise with trust; AUROC is the chance that a right label is trusted "
        "more than a wrong one, 0.5 is blind.",
        figures.correctness_figure(
            panels, dig(metrics, "trust", "auroc") or {}, dig(metrics, "trust", "accuracy")
        ),
        wide=len(panels) > 1,
    )
