"""The report's charts. Each function takes plain numbers and returns one inline ``<svg>``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.report.palette import class_color
from gcdis_ray.report.svg import INK, draw_svg
from gcdis_ray.report.view import ClassView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = "#e4572e"
CALM = "#5b8e9f"
_MAX_PANELS = 16
_MAX_POINTS_PER_LINE = 300


def class_count_figure(count: Mapping[str, Any], truth: int | None) -> Markup:
    """Score over candidate class counts, with the estimate, its interval and the truth if known.

    Args:
        count: the ``class_count`` document of stage count; its curve may be empty.
        truth: true total number of classes.
    """
    curve = sorted(count.get("curve") or [], key=lambda point: point["num_classes"])
    estimate = int(count["num_classes"])
    low, high = count.get("interval") or (estimate, estimate)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvspan(low - 0.5, high + 0.5, color=ACCENT, alpha=0.14, linewidth=0)
        axes.plot(
            [p["num_classes"] for p in curve],
            [p.get("score", math.nan) for p in curve],
            color=CALM,
            marker="o",
            markersize=4,
            linewidth=1.6,
        )
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
        _integer_axis(axes)

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
        for y, group in enumerate(reversed(groups)):
            ours, theirs = float(found[group] or 0), baseline.get(group)
            if theirs is not None:
                axes.plot([theirs, ours], [y, y], color=INK, alpha=0.25, linewidth=3, zorder=1)
                axes.scatter([theirs], [y], s=60, color=CALM, zorder=2)
                below = theirs <= ours
                _beside(axes, theirs, y, f"{theirs:.2f}", left=below, color=CALM)
                _beside(axes, ours, y, f"{ours:.2f}", left=not below, color=ACCENT)
            else:
                _beside(axes, ours, y, f"{ours:.2f}", left=False, color=ACCENT)
            axes.scatter([ours], [y], s=90, color=ACCENT, zorder=3)
        axes.set_yticks(range(len(groups)), list(reversed(groups)))
        axes.tick_params(axis="y", length=0, labelsize=11)
        axes.set_ylim(-0.6, len(groups) - 0.4)
        axes.set_xlim(-0.02, 1.02)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("clustering accuracy")
        _legend(figure, [("this run", ACCENT), ("k-means on the frozen embeddings", CALM)])

    return draw_svg("accuracy", "Clustering accuracy of this run and of k-means", (6.2, 3.2), draw)


def size_figure(classes: Sequence[ClassView], sizes: Mapping[int, int]) -> Markup:
    """Number of unlabeled crops per class, largest first: the long tail.

    Args:
        sizes: class_index -> number of crops; absent is zero.
    """
    ranked = sorted(classes, key=lambda c: (-sizes.get(c.class_index, 0), c.class_index))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.bar(
            range(len(ranked)),
            [sizes.get(c.class_index, 0) for c in ranked],
            color=[class_color(c.class_index, c.known) for c in ranked],
            width=0.82,
        )
        if len(ranked) <= 90:
            dense = len(ranked) > 45
            names = [_short(c.name, 16) for c in ranked]
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
        columns: title -> (values in [0, 1] in known classes, values in discovered classes).
    """

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(columns), squeeze=False)[0]
        for axes, (title, (known, novel)) in zip(panels, columns.items(), strict=True):
            axes.hist(
                [known, novel],
                bins=np.linspace(0, 1, 21),
                stacked=True,
                color=[CALM, ACCENT],
                rwidth=0.92,
            )
            axes.set_title(title)
            axes.set_xlim(0, 1)
        panels[0].set_ylabel("unlabeled crops")
        _legend(figure, [("known classes", CALM), ("discovered classes", ACCENT)])

    size = (3.8 * len(columns), 2.7)
    return draw_svg("trust", "Histograms of " + ", ".join(columns), size, draw)


def reliability_figure(bins: Sequence[Mapping[str, Any]]) -> Markup:
    """Share of right labels over reliability; rising bars mean that trust is well placed.

    Args:
        bins: ``from``, ``to``, ``num_crops`` and ``accuracy`` of each slice of reliability.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for slice_ in bins:
            middle, width = (slice_["from"] + slice_["to"]) / 2, slice_["to"] - slice_["from"]
            accuracy = float(slice_["accuracy"] or 0)
            axes.bar(middle, accuracy, width=0.9 * width, color=CALM)
            axes.annotate(
                f"{accuracy:.2f}",
                (middle, accuracy),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.08)
        axes.set_xlabel("reliability")
        axes.set_ylabel("share of right labels")

    label = "Share of right pseudo-labels for slices of reliability, from low to high"
    return draw_svg("reliability", label, (6.2, 3.0), draw)


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
            steps, values = _thin(*history[name])
            axes.plot(steps, values, color=CALM, linewidth=0.8, alpha=0.5)
            axes.plot(steps, _smooth(values), color=CALM, linewidth=1.8)
            axes.set_title(_short(name, 30), fontsize=9)
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


def embedding_figure(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[ClassView]
) -> Markup:
    """Two-dimensional maps of crops coloured by class, side by side.

    Args:
        panels: title -> (points of shape (N, 2), class_index of shape (N,)).
        classes: every class; the largest are named at their medians.
    """
    by_index = {c.class_index: c for c in classes}

    def draw(figure: Figure) -> None:
        axes_row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (points, indices)) in zip(axes_row, panels.items(), strict=True):
            colors = [
                class_color(i, by_index[i].known) if i in by_index else CALM
                for i in indices.tolist()
            ]
            size = float(np.clip(16000 / max(len(points), 1), 6, 42))
            axes.scatter(
                points[:, 0],
                points[:, 1],
                c=colors,
                s=size,
                alpha=0.8,
                linewidths=0,
                rasterized=True,
            )
            _name_classes(axes, points, indices, by_index)
            axes.set_title(title)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)

    return draw_svg(
        "embedding-map",
        "Principal components of crops, coloured by class: " + "; ".join(panels),
        (5.7 * len(panels), 4.9),
        draw,
    )


def _name_classes(
    axes: Axes, points: np.ndarray, indices: np.ndarray, by_index: Mapping[int, ClassView]
) -> None:
    present, counts = np.unique(indices, return_counts=True)
    largest = present[np.argsort(-counts, kind="stable")][:24]
    for index in largest.tolist():
        if index not in by_index:
            continue
        x, y = np.median(points[indices == index], axis=0)
        chosen = by_index[index]
        axes.annotate(
            _short(chosen.name, 18),
            (float(x), float(y)),
            ha="center",
            va="center",
            fontsize=8,
            weight="normal" if chosen.known else "bold",
        )


def _beside(axes: Axes, x: float, y: float, text: str, *, left: bool, color: str) -> None:
    axes.annotate(
        text,
        (x, y),
        xytext=(-9 if left else 9, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center",
        color=color,
        weight="bold",
    )


def _legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=text) for text, color in entries]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(entries), fontsize=9)


def _integer_axis(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``_MAX_POINTS_PER_LINE`` points: means over equal runs of the finite values."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(values) <= _MAX_POINTS_PER_LINE:
        return steps, values
    parts = np.array_split(np.arange(len(values)), _MAX_POINTS_PER_LINE)
    return (
        np.array([steps[p[-1]] for p in parts]),
        np.array([values[p].mean() for p in parts]),
    )


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over about a twentieth of the line, corrected at the start."""
    decay = 1 - 1 / max(1.0, len(values) / 20)
    out, total, weight = np.empty(len(values)), 0.0, 0.0
    for i, value in enumerate(values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out[i] = total / weight
    return out
