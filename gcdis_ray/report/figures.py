"""The report's charts. Each function takes plain numbers and returns one inline ``<svg>``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.report.marks import (
    ACCENT,
    BETWEEN,
    CALM,
    dumbbells,
    integer_axis,
    legend,
    log_axis,
    short,
    smooth,
    thin,
)
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.svg import INK, draw_svg
from gcdis_ray.report.view import ClassView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAX_PANELS = 16
_MAX_BARS = 300  # of more classes the outline is drawn
_CURVES = (CALM, BETWEEN, INK)
_WIDE = 10  # an axis over more than this factor is logarithmic


def class_count_figure(count: Mapping[str, Any], truth: int | None) -> Markup:
    """Score over candidate class counts, with the estimate, its interval and the truth if known.

    Args:
        count: the ``class_count`` document; its curve may be empty. A combination has those of its
            parts.
        truth: true total number of classes.
    """
    combined = count.get("combines") or ()
    parts = [other for other in count.get("others") or [] if other["method"] in combined]
    curves = [
        sorted(drawn.get("curve") or [], key=lambda point: point["num_classes"])
        for drawn in parts or [count]
    ]
    estimate = int(count["num_classes"])
    low, high = count.get("interval") or (estimate, estimate)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvspan(low - 0.5, high + 0.5, color=ACCENT, alpha=0.14, linewidth=0)
        for curve, color in zip(curves, cycle(_CURVES)):
            axes.plot(
                [p["num_classes"] for p in curve],
                [p.get("score", math.nan) for p in curve],
                color=color,
                marker="o",
                markersize=4,
                linewidth=1.6,
            )
        if parts:
            names = [part["method"].replace("_", " ") for part in parts]
            legend(figure, list(zip(names, cycle(_CURVES))))
        axes.axvline(estimate, color=ACCENT, linewidth=1.8)
        axes.annotate(
            f" estimate {estimate}",
            (estimate, 1.0),
            xycoords=("data", "axes fraction"),
            va="bottom",
            color=ACCENT,
            weight="bold",
        )
        if truth is not None:
            axes.axvline(truth, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                f"truth {truth} ",
                (truth, 1.0),
                xycoords=("data", "axes fraction"),
                va="bottom",
                ha="right" if truth <= estimate else "left",
                annotation_clip=False,
                xytext=(0, 13) if truth == estimate else (0, 0),
                textcoords="offset points",
            )
        axes.set_xlabel("number of classes, known and novel")
        axes.set_ylabel("score")
        numbers = [point["num_classes"] for curve in curves for point in curve] or [estimate]
        if max(numbers) > _WIDE * min(numbers):
            log_axis(axes)
        else:
            integer_axis(axes)

    label = f"Score over the number of classes; estimate {estimate}, interval {low} to {high}"
    return draw_svg("class-count", label, (6.2, 3.2), draw)


def accuracy_figure(
    found: Mapping[str, float | None], baseline: Mapping[str, float | None]
) -> Markup:
    """Clustering accuracy against k-means on the frozen embeddings, for all, known and novel.

    Args:
        found, baseline: group -> accuracy in [0, 1]; None or absent where not measured.
    """
    groups = [g for g in ("novel", "known", "all") if found.get(g) is not None]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dumbbells(figure, axes, {group: group for group in groups}, found, baseline)

    return draw_svg("accuracy", "Clustering accuracy of this run and of k-means", (6.2, 3.2), draw)


def size_figure(classes: Sequence[ClassView], sizes: Mapping[int, int]) -> Markup:
    """Number of unlabeled crops per class, largest first: the long tail.

    Args:
        sizes: class_index -> number of crops; absent is zero.
    """
    ranked = sorted(classes, key=lambda c: (-sizes.get(c.class_index, 0), c.class_index))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        counts = [sizes.get(c.class_index, 0) for c in ranked]
        if len(ranked) > _MAX_BARS:
            axes.stairs(counts, np.arange(len(ranked) + 1), color=CALM, fill=True)
        else:
            colors = [class_color(c.class_index, c.known) for c in ranked]
            axes.bar(range(len(ranked)), counts, color=colors, width=0.82)
        if len(ranked) <= 90:
            dense = len(ranked) > 45
            names = [short(c.name, 16) for c in ranked]
            axes.set_xticks(range(len(ranked)), names, rotation=90 if len(ranked) > 14 else 0)
            axes.tick_params(axis="x", length=0, labelsize=7 if dense else 9)
        else:
            axes.set_xlabel("classes by size")
        axes.margins(x=0.01)
        axes.set_ylabel("unlabeled crops")

    return draw_svg(
        "sizes", "Number of unlabeled crops in each class, largest first", (11.4, 2.9), draw
    )


def trust_figure(columns: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Markup:
    """Histograms of how far assignments can be trusted, known and novel classes stacked.

    Args:
        columns: title -> (values in known classes, values in discovered classes). Stability has no
            bounds: values outside [0, 1] get an axis of their own, logarithmic if all are positive.
    """

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(columns), squeeze=False)[0]
        for axes, (title, (known, novel)) in zip(panels, columns.items(), strict=True):
            bins, logarithmic = _trust_bins(np.concatenate([known, novel]))
            axes.hist(
                [known, novel],
                bins=bins.tolist(),
                stacked=True,
                color=[CALM, ACCENT],
                rwidth=0.92,
            )
            axes.set_title(title)
            axes.set_xlim(bins[0], bins[-1])
            if logarithmic:
                log_axis(axes)
        panels[0].set_ylabel("unlabeled crops")
        legend(figure, [("known classes", CALM), ("discovered classes", ACCENT)])

    size = (3.8 * len(columns), 2.7)
    return draw_svg("trust", "Histograms of " + ", ".join(columns), size, draw)


def _trust_bins(values: np.ndarray) -> tuple[np.ndarray, bool]:
    """Edges of 20 bins, and whether they grow by a factor."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return np.linspace(0, 1, 21), False
    if low > 0:
        return np.geomspace(low, max(high, 1.001 * low), 21), True
    return np.linspace(low, max(high, low + 1e-6), 21), False


def training_figure(stage: str, history: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Markup:
    """Small multiples of one training run: thin line as logged, thick line smoothed.

    Args:
        stage: names the figure's ids.
        history: quantity -> (steps, values).
    """
    names = sorted(history, key=lambda n: ("loss" not in n, "total" not in n and n != "loss", n))
    shown = names[:_MAX_PANELS]
    num_columns = 4  # also when fewer are filled, so that all runs are drawn to one scale
    num_rows = math.ceil(len(shown) / num_columns)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(num_rows, num_columns, squeeze=False).ravel()
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        for axes, name in zip(panels, shown, strict=False):
            steps, values = thin(*history[name])
            axes.plot(steps, values, color=CALM, linewidth=0.8, alpha=0.5)
            axes.plot(steps, smooth(values), color=CALM, linewidth=1.8)
            axes.set_title(short(name, 30), fontsize=9)
            axes.tick_params(labelsize=8)
            axes.margins(x=0.02)
            if len(values):
                axes.annotate(
                    f"{values[-1]:.3g}",
                    (1, 1),
                    xycoords="axes fraction",
                    ha="right",
                    va="top",
                    fontsize=9,
                    color=ACCENT,
                )
        for axes in panels[max(0, len(shown) - num_columns) : len(shown)]:
            axes.set_xlabel("step", fontsize=8)

    return draw_svg(
        f"train-{stage}",
        f"Training curves of {stage}: {', '.join(shown)}",
        (2.85 * num_columns, 1.75 * num_rows),
        draw,
    )
