"""The report of a sweep as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gcdis_ray.report import sweep_figures
from gcdis_ray.report.html import duration, render
from gcdis_ray.report.section import Tile
from gcdis_ray.report.sweep_view import SweepView

_MAX_ROWS = 500


def write_sweep_report(view: SweepView) -> str:
    """The report on a sweep, finished or not. Equal views give equal pages."""
    fields, scored = view.fields(), view.scored()
    drawn = bool(view.drawn())
    done_first = sorted(view.trials, key=lambda t: (t not in scored, t["number"]))
    ranked = [*scored, *(t for t in done_first if t not in scored)]
    return render(
        "sweep.html.j2",
        {
            "view": view,
            "headline": _headline(view),
            "sentence": _sentence(view),
            "tiles": _tiles(view),
            "fields": fields,
            "slices": sweep_figures.slice_figure(view, fields) if drawn else None,
            "parallel": sweep_figures.parallel_figure(view, fields)
            if drawn and len(fields) > 1
            else None,
            "learning": sweep_figures.learning_figure(view),
            "ranked": ranked[:_MAX_ROWS],
            "best": scored[0]["number"] if scored else None,
            "left_out": max(0, len(ranked) - _MAX_ROWS),
            "spec": yaml.safe_dump(dict(view.sweep["spec"]), sort_keys=False, allow_unicode=True),
            "number": _number,
        },
    )


def _headline(view: SweepView) -> str:
    scored = view.scored()
    if not scored:
        return "No trial has a result yet"
    best = f"{view.sweep['objective']} {_number(scored[0]['objective'])}"
    return f"Best {best}" if view.result is not None else f"So far best: {best}"


def _sentence(view: SweepView) -> str:
    wanted = view.sweep["spec"].get("trials")
    of = f" of {wanted:,}" if isinstance(wanted, int) and wanted != len(view.trials) else ""
    does = view.sweep["kind"]
    kind = "that train" if does == "train" else f"that only {does}"
    goal = "largest" if view.larger_is_better else "smallest"
    return (
        f"{len(view.trials):,}{of} trials {kind}, in search of the {goal} "
        f"{view.sweep['objective']}."
    )


def _tiles(view: SweepView) -> list[Tile]:
    states = [t["state"] for t in view.trials]
    cached = sum(bool(t.get("cached")) for t in view.trials)
    seconds = sum(float(t.get("seconds") or 0) for t in view.trials)
    tiles: list[Tile] = []
    if scored := view.scored():
        seeds = scored[0].get("by_seed") or []
        note = f"{min(seeds):.4g} to {max(seeds):.4g} over {len(seeds)} seeds"
        tiles.append(
            Tile(
                view.sweep["objective"],
                _number(scored[0]["objective"]),
                note if len(seeds) > 1 else f"trial {scored[0]['number']}",
                hot=True,
            )
        )
    tiles.append(Tile("trials done", f"{states.count('done'):,}", f"{cached:,} already known"))
    if stopped := states.count("stopped"):
        tiles.append(Tile("stopped early", f"{stopped:,}", "behind the others at the same step"))
    if failed := states.count("failed"):
        tiles.append(Tile("failed", f"{failed:,}", "see the table"))
    tiles.append(Tile("in trials", duration(seconds), "summed over all"))
    return tiles


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_number(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_number(item) for item in value) + "]"
    return "–" if value is None else str(value)
