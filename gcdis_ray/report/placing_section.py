"""How crops were placed before training, and which method withheld labels found best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from gcdis_ray.report.findings import fraction
from gcdis_ray.report.html import fill
from gcdis_ray.report.marks import ACCENT, legend
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.section import DISCOVERY, Section
from gcdis_ray.report.svg import draw_svg
from gcdis_ray.report.view import RunView, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 8  # rows of the table
_BESIDE = 1  # rank after the section on discovery


def placing_section(view: RunView) -> Section:
    """Empty for a run whose crops were not placed."""
    placing, candidates = view.json("placing"), view.json("candidates")

    def body() -> Markup:
        if not placing:
            return Markup("")
        rows = [_row(entry, n < placing["num_joined"]) for n, entry in enumerate(placing["tried"])]
        beside = [_row(entry, False) for entry in placing["baselines"]]
        return fill(
            "placing",
            figure=placing_figure(placing["tried"]),
            rows=rows[:_SHOWN] + [row for row in beside if row not in rows[:_SHOWN]],
            joined=placing["num_joined"],
            candidates=[_candidate(row) for row in (candidates or {}).get("candidates", [])],
            crops=(candidates or {}).get("num_crops"),
        )

    return Section(
        "placing",
        "Placing",
        body,
        DISCOVERY + _BESIDE,
        heading="What withheld labels say",
        sentences=_sentences(candidates),
    )


def _row(entry: Mapping[str, Any], joined: bool) -> dict[str, Any]:
    stretch = entry["stretch"]
    return {
        "clusterer": printable(entry["clusterer"]),
        "space": printable(entry["space"]),
        "stretch": "" if stretch is None else f"{stretch:g}",
        "known": fraction(entry["known"]),
        "novel": fraction(entry["novel"]),
        "score": f"{fraction(entry['score'])} ± {entry['deviation']:.2f}",
        "joined": joined,
    }


def _candidate(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": printable(row["method"]),
        **{part: fraction(row[part]) for part in ("known", "novel", "score")},
        "chosen": row["chosen"],
    }


def _sentences(candidates: Mapping[str, Any] | None) -> list[str]:
    if not candidates:
        return []
    rows = candidates["candidates"]
    chosen = next(row for row in rows if row["chosen"])
    others = ", ".join(
        f"{printable(row['method'])} {fraction(row['score'])}" for row in rows if row is not chosen
    )
    return [
        f"Of the candidates, withheld labels favour {printable(chosen['method'])} "
        f"({fraction(chosen['score'])}; {others})."
    ]


def placing_figure(tried: Sequence[Mapping[str, Any]]) -> Markup:
    """Score of linkage over the stretch, a line for each space; the best choice is ringed."""
    curves: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for entry in tried:
        if entry["stretch"] is not None:
            curves[entry["space"]].append((entry["stretch"], entry["score"]))
    names = sorted(curves)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for n, name in enumerate(names):
            stretches, scores = zip(*sorted(curves[name]), strict=True)
            axes.plot(
                stretches, scores, color=class_color(n, known=False), marker="o", markersize=3.5
            )
        if curves:
            best = max((point[1], point[0]) for curve in curves.values() for point in curve)
            axes.scatter([best[1]], [best[0]], s=130, facecolors="none", edgecolors=ACCENT, lw=2)
        axes.set_xlabel("stretch of distances between labeled and unlabeled crops")
        axes.set_ylabel("score on withheld labels")
        legend(
            figure, [(printable(name), class_color(n, known=False)) for n, name in enumerate(names)]
        )

    return draw_svg("placing", "Score of every placing on withheld labels", (6.2, 3.6), draw)
