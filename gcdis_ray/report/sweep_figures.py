"""Figures of a sweep's page. Each returns one inline ``<svg>``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.report.marks import ACCENT, BETWEEN, CALM, log_axis, short
from gcdis_ray.report.svg import INK, draw_svg
from gcdis_ray.report.sweep_view import Field, SweepView

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAX_LINES = 300
_MAX_AXES = 8


def slice_figure(view: SweepView, fields: Sequence[Field]) -> Markup:
    """Objective over each field: a dot per trial, a bar over its seeds, the best one in colour.

    Where there is one field only, dots are joined and a band covers what is as good as the best.
    """
    shown = list(fields[:_MAX_AXES])
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    trials, best = view.drawn(), _best(view)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for axes in panels[len(shown) :]:
            axes.set_axis_off()
        for axes, field in zip(panels, shown, strict=False):
            places = _places(trials, field)
            if len(shown) == 1:
                _band_and_line(axes, view, trials, places)
            for trial, x in zip(trials, places, strict=True):
                color = ACCENT if trial["number"] == best else CALM
                faded = 0.35 if trial["state"] != "done" else 0.9
                seeds = trial.get("by_seed") or []
                if len(seeds) > 1:
                    axes.plot([x, x], [min(seeds), max(seeds)], color=color, alpha=0.4 * faded)
                big = 60 if trial["number"] == best else 24
                axes.scatter([x], [trial["objective"]], s=big, color=color, alpha=faded, zorder=3)
            _label_axis(axes, trials, field)
            axes.set_xlabel(short(field.name, 34))
        for axes in panels[:: columns or 1]:
            axes.set_ylabel(short(view.sweep["objective"], 24))

    label = f"{view.sweep['objective']} over " + ", ".join(field.name for field in shown)
    size = (11.4, 3.4) if len(shown) == 1 else (3.8 * columns, 2.7 * rows)
    return draw_svg("slices", label, size, draw)


def parallel_figure(view: SweepView, fields: Sequence[Field]) -> Markup:
    """Parallel coordinates: one line per trial through its values and its objective at the right;
    the better, the darker; the best in colour."""
    shown = list(fields[:_MAX_AXES])
    trials, best = view.drawn()[-_MAX_LINES:], _best(view)
    goals = np.array([float(t["objective"]) for t in trials])
    ranks = np.argsort(np.argsort(goals if view.larger_is_better else -goals))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        heights = [_heights(trials, field) for field in shown] + [_spread(goals)]
        for index, trial in enumerate(trials):
            chosen = trial["number"] == best
            axes.plot(
                range(len(heights)),
                [column[index] for column in heights],
                color=ACCENT if chosen else CALM,
                linewidth=2.6 if chosen else 1.2,
                alpha=1.0 if chosen else 0.12 + 0.6 * ranks[index] / max(len(trials) - 1, 1),
                zorder=3 if chosen else 2,
            )
        for place, field in enumerate(shown):
            low, high = _ends(trials, field)
            _ends_of_axis(axes, place, low, high)
        _ends_of_axis(axes, len(shown), _number(goals.min()), _number(goals.max()))
        names = [short(field.name, 20) for field in shown] + [short(view.sweep["objective"], 20)]
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", length=0, pad=16)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_ylim(-0.09, 1.09)

    label = f"{len(trials)} trials through " + ", ".join(field.name for field in shown)
    return draw_svg("parallel", label, (11.4, 3.8), draw)


def learning_figure(view: SweepView) -> Markup | None:
    """Objective while trials trained; those stopped early end in a cross. None without curves."""
    trials = [t for t in view.trials if len(t.get("curve") or []) > 1]
    best = _best(view)
    if not trials:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for trial in sorted(trials, key=lambda t: t["number"] == best)[-_MAX_LINES:]:
            steps = [point["step"] for point in trial["curve"]]
            values = [point["value"] for point in trial["curve"]]
            color = ACCENT if trial["number"] == best else CALM
            width = 2.2 if trial["number"] == best else 1.1
            axes.plot(steps, values, color=color, linewidth=width, alpha=0.8)
            if trial["state"] == "stopped":
                axes.scatter(steps[-1:], values[-1:], marker="x", s=30, color=BETWEEN, zorder=3)
        axes.set_xlabel("step")
        axes.set_ylabel(short(view.sweep["objective"], 24))

    return draw_svg("learning", "Objective of every trial while it trained", (11.4, 3.2), draw)


def _best(view: SweepView) -> int | None:
    """Number of the chosen trial, or of the best so far."""
    if view.result is not None:
        return int(view.result["best"])
    scored = view.scored()
    return int(scored[0]["number"]) if scored else None


def _band_and_line(
    axes: Axes, view: SweepView, trials: Sequence[Mapping[str, Any]], places: Sequence[float]
) -> None:
    if interval := view.as_good():
        axes.axvspan(interval[0], interval[1], color=ACCENT, alpha=0.14, linewidth=0)
    done = sorted(
        (x, t["objective"]) for x, t in zip(places, trials, strict=True) if t["state"] == "done"
    )
    axes.plot([x for x, _ in done], [y for _, y in done], color=CALM, linewidth=1.4, zorder=1)


def _values(trials: Sequence[Mapping[str, Any]], field: Field) -> list[Any]:
    return [trial["values"].get(field.path) for trial in trials]


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _choices(values: Sequence[Any]) -> list[str]:
    return sorted({str(v) for v in values})


def _places(trials: Sequence[Mapping[str, Any]], field: Field) -> list[float]:
    """Where each trial lies along the field's axis: its number, or its place among choices."""
    values = _values(trials, field)
    if _numeric(values):
        return [float(v) for v in values]
    order = _choices(values)
    return [float(order.index(str(v))) for v in values]


def _label_axis(axes: Axes, trials: Sequence[Mapping[str, Any]], field: Field) -> None:
    values = _values(trials, field)
    if not _numeric(values):
        order = _choices(values)
        axes.set_xticks(range(len(order)), [short(name, 14) for name in order])
        axes.set_xlim(-0.5, len(order) - 0.5)
    elif field.logarithmic and min(values, default=0) > 0:
        log_axis(axes)


def _heights(trials: Sequence[Mapping[str, Any]], field: Field) -> np.ndarray:
    places = np.array(_places(trials, field))
    if field.logarithmic and _numeric(_values(trials, field)) and (places > 0).all():
        places = np.log(places)
    return _spread(places)


def _spread(values: np.ndarray) -> np.ndarray:
    """Stretched to [0, 1]; equal values to the middle."""
    span = np.ptp(values) if len(values) else 0.0
    return (values - values.min()) / span if span else np.full(len(values), 0.5)


def _ends(trials: Sequence[Mapping[str, Any]], field: Field) -> tuple[str, str]:
    values = _values(trials, field)
    if _numeric(values):
        return _number(min(values)), _number(max(values))
    order = _choices(values)
    return short(order[0], 14), short(order[-1], 14)


def _ends_of_axis(axes: Axes, place: int, low: str, high: str) -> None:
    axes.axvline(place, color=INK, linewidth=0.6, alpha=0.4, zorder=1)
    for y, text, side in ((-0.02, low, "top"), (1.02, high, "bottom")):
        axes.annotate(text, (place, y), ha="center", va=side, fontsize=8)


def _number(value: float) -> str:
    return f"{value:.4g}"
