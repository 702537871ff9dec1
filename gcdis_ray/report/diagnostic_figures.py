"""Figures on how discovery came about. Each takes plain numbers and returns one ``<svg>``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.report.heat import ClassHeat
from gcdis_ray.report.marks import ACCENT, BETWEEN, CALM, dumbbells, legend, log_axis, short
from gcdis_ray.report.svg import INK, draw_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HALF, _WIDE = (6.2, 3.2), (11.4, 3.3)
_MAX_NAMED = 24  # classes named in a scatter plot
_THIRD_COLORS = {"head": CALM, "mid": BETWEEN, "tail": ACCENT}


def frequency_figure(
    found: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
    notes: Mapping[str, str],
) -> Markup:
    """Accuracy in the most, middle and least frequent third of the classes, against k-means.

    Args:
        found, baseline: ``head``, ``mid``, ``tail`` -> accuracy in [0, 1]; None where not measured.
        notes: third -> how many classes and objects it has.
    """
    thirds = [third for third in _THIRD_COLORS if found.get(third) is not None]
    labels = {third: f"{third}\n{notes[third]}" if third in notes else third for third in thirds}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dumbbells(figure, axes, labels, found, baseline)
        axes.tick_params(axis="y", labelsize=9)

    label = "Clustering accuracy of frequent, middling and rare classes, and of k-means"
    return draw_svg("thirds", label, _HALF, draw)


def entropy_figure(
    times: np.ndarray,
    entropies: np.ndarray,
    unit: str,
    marks: Mapping[str, float],
    starts: float | None,
) -> Markup:
    """Entropy of the cluster sizes while discovery trains; right axis: as many equal clusters.

    Args:
        times: in ``unit``.
        entropies: in nats.
        unit: of time, "epoch" or "step".
        marks: what a horizontal line stands for -> its entropy.
        starts: time at which clusters start to be learned, if that is known.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(times, entropies, color=CALM, marker="o", markersize=3, linewidth=1.6)
        if starts is not None and starts > 0:
            axes.axvline(starts, color=INK, alpha=0.5, linewidth=1, linestyle=(0, (1, 2)))
            axes.annotate(
                " clustering starts ",
                (starts, 0.02),
                xycoords=("data", "axes fraction"),
                ha="right" if starts > float(np.mean(axes.get_xlim())) else "left",
                fontsize=8,
            )
        for n, (text, value) in enumerate(marks.items()):
            axes.axhline(value, color=ACCENT, linewidth=1.2, linestyle=(0, (4, 3)))
            axes.annotate(
                text,
                (0.01 if n % 2 == 0 else 0.99, value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3 if n % 2 == 0 else -3),
                textcoords="offset points",
                ha="left" if n % 2 == 0 else "right",
                va="bottom" if n % 2 == 0 else "top",
                fontsize=8,
                color=ACCENT,
            )
        axes.margins(y=0.15)
        low, high = axes.get_ylim()
        low = max(low, 0.0)
        axes.set_ylim(low, max(high, low + 1e-3))
        axes.set_xlabel(unit)
        axes.set_ylabel("entropy, nats")
        _effective_axis(axes)

    label = f"Entropy of cluster sizes by {unit}, {entropies[0]:.2f} to {entropies[-1]:.2f} nats"
    return draw_svg("cluster-entropy", label, _HALF, draw)


def _effective_axis(axes: Axes) -> None:
    """A right axis in e^entropy: that many clusters of equal size have the same entropy."""
    from matplotlib.ticker import MaxNLocator

    low, high = axes.get_ylim()
    ticks = [
        t
        for t in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(math.exp(low), math.exp(high))
        if t > 0
    ]
    ticks = [t for t in ticks if low <= math.log(t) <= high]
    right = axes.twinx()
    right.set_ylim(low, high)
    right.set_yticks([math.log(t) for t in ticks], [f"{t:g}" for t in ticks])
    right.set_ylabel("effective clusters")
    right.spines["right"].set_visible(True)


def heat_figure(classes: Sequence[ClassHeat], panels: Sequence[str]) -> Markup:
    """Headness and temperature of classes over how many crops they have.

    Args:
        classes: one dot each; the largest and smallest are named.
        panels: which of ``headness`` and ``temperature`` to draw.
    """
    sizes = np.array([item.num_crops for item in classes])
    ranked = np.argsort(-sizes, kind="stable").tolist()
    half = _MAX_NAMED // 2
    named = ranked if len(ranked) <= _MAX_NAMED else ranked[:half] + ranked[-half:]

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, quantity in zip(row, panels, strict=True):
            values = np.array([getattr(item, quantity) for item in classes])
            colors = [CALM if item.known else ACCENT for item in classes]
            axes.scatter(sizes, values, c=colors, s=42, alpha=0.85, linewidths=0)
            for i in named:
                axes.annotate(
                    short(classes[i].name, 14),
                    (sizes[i], values[i]),
                    xytext=(5, 3),
                    textcoords="offset points",
                    fontsize=7,
                )
            axes.margins(x=0.12, y=0.15)
            if sizes.max() > 8 * sizes.min():
                log_axis(axes)
            axes.set_title(quantity + _correlation(sizes, values))
            axes.set_xlabel("crops of the class")
        row[0].set_ylabel("mean over the class")
        legend(figure, [("known classes", CALM), ("novel classes", ACCENT)])

    label = " and ".join(panels) + " of classes over their number of crops"
    return draw_svg("heat", label, _WIDE if len(panels) > 1 else _HALF, draw)


def _correlation(sizes: np.ndarray, values: np.ndarray) -> str:
    """Spearman's, where there are enough classes for one."""
    from scipy.stats import rankdata

    if len(sizes) < 4 or np.ptp(sizes) == 0 or np.ptp(values) == 0:
        return ""
    return f", rank correlation {np.corrcoef(rankdata(sizes), rankdata(values))[0, 1]:+.2f}"


def headness_figure(thirds: Mapping[str, np.ndarray]) -> Markup:
    """Histograms of headness, one line per third of the classes, each adding up to one.

    Args:
        thirds: ``head``, ``mid``, ``tail`` -> headness > 0 of their crops; empty ones are left out.
    """
    filled = {third: values for third, values in thirds.items() if len(values)}
    everything = np.concatenate(list(filled.values()))
    low, high = np.quantile(everything, [0.1, 0.9])
    start, end = np.quantile(everything, [0.001, 0.999])
    edges = np.linspace(start, max(end, start + 1e-9), 31)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvspan(low, high, color=INK, alpha=0.06, linewidth=0)
        for third, values in filled.items():
            counts, _ = np.histogram(values.clip(edges[0], edges[-1]), edges)
            axes.stairs(
                counts / len(values), edges, color=_THIRD_COLORS[third], linewidth=1.8, fill=False
            )
            axes.axvline(float(np.median(values)), color=_THIRD_COLORS[third], alpha=0.6)
        axes.set_xlabel("headness")
        axes.set_ylabel("share of the third's crops")
        axes.set_ylim(bottom=0)
        legend(figure, [(f"{t} classes", _THIRD_COLORS[t]) for t in filled])

    label = "Histograms of headness: " + ", ".join(
        f"{third} median {np.median(values):.3g}" for third, values in filled.items()
    )
    return draw_svg("headness", label, _HALF, draw)


def calibration_figure(bins: Sequence[Mapping[str, Any]], error: float | None) -> Markup:
    """Reliability diagram: share of right labels over their probability, and how many there are.

    Args:
        bins: ``from``, ``to``, ``num_crops``, ``mean`` and ``accuracy`` per slice, none empty.
        error: expected calibration error.
    """

    def draw(figure: Figure) -> None:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        for row in bins:
            middle, width = (row["from"] + row["to"]) / 2, row["to"] - row["from"]
            axes.bar(middle, row["accuracy"], width=0.9 * width, color=CALM)
            below.bar(middle, row["num_crops"], width=0.9 * width, color=CALM, alpha=0.6)
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.plot(
            [row["mean"] for row in bins],
            [row["accuracy"] for row in bins],
            color=ACCENT,
            marker="o",
            markersize=5,
            linewidth=1,
        )
        if error is not None:
            axes.set_title(f"calibration error {error:.3f}")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("share right")
        below.set_ylabel("crops")
        below.set_xlabel("probability of the label")

    label = "Reliability diagram: share of right labels per slice of probability"
    return draw_svg("calibration", label, (6.2, 3.8), draw)


def correctness_figure(
    panels: Mapping[str, Sequence[Mapping[str, Any]]],
    auroc: Mapping[str, float | None],
    overall: float | None,
) -> Markup:
    """Share of right labels from the least to the most trusted crops, for each kind of trust.

    Args:
        panels: title -> rows with ``num_crops`` and ``accuracy`` by rising trust, none empty.
        auroc: title -> chance that a right label is trusted more than a wrong one.
        overall: share of right labels, drawn as a line.
    """

    def draw(figure: Figure) -> None:
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, bins) in zip(row, panels.items(), strict=True):
            counts = np.array([b["num_crops"] for b in bins], dtype=float)
            ends = np.cumsum(counts) / counts.sum()
            widths = counts / counts.sum()
            bars = axes.bar(
                ends - widths / 2, [b["accuracy"] for b in bins], 0.94 * widths, color=CALM
            )
            if len(bins) <= 12:
                axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
            if overall is not None:
                axes.axhline(overall, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
            area = auroc.get(title)
            axes.set_title(title + (f", AUROC {area:.2f}" if area is not None else ""))
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1.12)
            axes.set_xlabel("crops, least trusted first")
        row[0].set_ylabel("share right")

    label = "Share of right labels from the least to the most trusted crops: " + ", ".join(panels)
    return draw_svg("correctness", label, _WIDE if len(panels) > 1 else _HALF, draw)
