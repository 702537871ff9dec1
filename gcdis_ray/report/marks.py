"""Marks that several of the report's figures share: colours, labels, legends, lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gcdis_ray.report.svg import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACCENT = "#e4572e"
CALM = "#5b8e9f"
BETWEEN = "#b8924a"
MAX_POINTS_PER_LINE = 300


def dumbbells(
    figure: Figure,
    axes: Axes,
    groups: Mapping[str, str],
    found: Mapping[str, float | None],
    baseline: Mapping[str, float | None],
) -> None:
    """Accuracy of this run against k-means, a line per group, the first one on top.

    Args:
        groups: group -> its label.
        found, baseline: group -> accuracy in [0, 1]; None or absent in ``baseline`` draws one dot.
    """
    rising = list(groups)[::-1]
    for y, group in enumerate(rising):
        ours, theirs = float(found[group] or 0), baseline.get(group)
        if theirs is not None:
            axes.plot([theirs, ours], [y, y], color=INK, alpha=0.25, linewidth=3, zorder=1)
            axes.scatter([theirs], [y], s=60, color=CALM, zorder=2)
            below = theirs <= ours
            beside(axes, theirs, y, f"{theirs:.2f}", left=below, color=CALM)
            beside(axes, ours, y, f"{ours:.2f}", left=not below, color=ACCENT)
        else:
            beside(axes, ours, y, f"{ours:.2f}", left=False, color=ACCENT)
        axes.scatter([ours], [y], s=90, color=ACCENT, zorder=3)
    axes.set_yticks(range(len(groups)), [groups[group] for group in rising])
    axes.tick_params(axis="y", length=0, labelsize=11)
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlim(-0.02, 1.02)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("clustering accuracy")
    entries = [("this run", ACCENT), ("k-means on the frozen embeddings", CALM)]
    measured = any(baseline.get(group) is not None for group in groups)
    legend(figure, entries if measured else entries[:1])


def beside(axes: Axes, x: float, y: float, text: str, *, left: bool, color: str) -> None:
    """A bold number next to a point."""
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


def legend(figure: Figure, entries: Sequence[tuple[str, str]]) -> None:
    """Colours and what they stand for, below the figure."""
    from matplotlib.patches import Patch

    handles = [Patch(color=color, label=text) for text, color in entries]
    figure.legend(handles=handles, loc="outside lower left", ncols=len(entries), fontsize=9)


def integer_axis(axes: Axes) -> None:
    """Ticks of the horizontal axis at whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def log_axis(axes: Axes) -> None:
    """Horizontal axis in factors. Its ticks are plain numbers: figures set no mathematics."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1.0,) if high > 500 * low else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain_number))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plain_number(value: float, _place: int | None) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def short(text: str, length: int) -> str:
    """The text, or its start and an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most ``MAX_POINTS_PER_LINE`` points: means over equal runs of the finite values."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    if len(values) <= MAX_POINTS_PER_LINE:
        return steps, values
    parts = np.array_split(np.arange(len(values)), MAX_POINTS_PER_LINE)
    return (
        np.array([steps[p[-1]] for p in parts]),
        np.array([values[p].mean() for p in parts]),
    )


def smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over about a twentieth of the line, corrected at the start."""
    decay = 1 - 1 / max(1.0, len(values) / 20)
    out, total, weight = np.empty(len(values)), 0.0, 0.0
    for i, value in enumerate(values):
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out[i] = total / weight
    return out
