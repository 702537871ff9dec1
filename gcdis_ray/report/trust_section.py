"""Which discovered classes to trust, without any truth: a table, and what to do with each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from gcdis_ray.report.cards import doubt
from gcdis_ray.report.findings import fraction, plural
from gcdis_ray.report.html import fill
from gcdis_ray.report.judging import Verdict
from gcdis_ray.report.section import CLASSES, Section, Tile
from gcdis_ray.report.sorted_run import SortedRun

CARDS_PER_LEAF = 48
_BESIDE = 1  # rank after the classes


def leaf_name(place: int) -> str:
    """File of the page beside the page that holds the card at this place of those beside it."""
    return f"classes-{place // CARDS_PER_LEAF + 1}.html"


def judged_in(run: SortedRun) -> str:
    """What the distances of classes are taken in, in words."""
    if "embeddings" in run.spaces:
        return "the frozen embeddings"
    return "discovery's projection" if run.spaces else ""


def trust_section(run: SortedRun) -> Section:
    """Discovered classes by what to do with them, the most urgent first; known ones that have no
    card on the page after them."""

    def body() -> Markup:
        groups = list(_groups(run))
        if not groups:
            return Markup("")
        items = run.judged.values()
        return fill(
            "trust",
            groups=groups,
            judged_in=judged_in(run),
            most=next(iter(run.spaces.values())).most,
            ranked=any(item.stability is not None for item in items),
            placed=any(item.placed is not None for item in items),
            holdout=_holdout(run),
        )

    return Section(
        "trust",
        "Which to trust",
        body,
        CLASSES + _BESIDE,
        heading="Which classes to trust",
        tiles=list(_tiles(run)),
    )


def _holdout(run: SortedRun) -> str:
    """What withheld labels say of the run as a whole, in words, if any were withheld."""
    found = run.view.json("holdout")
    if found and found.get("accuracy") is not None:
        return (
            f"Labels that this run withheld from discovery: {fraction(found['accuracy'])} of the "
            "crops concerned were sorted rightly."
        )
    rows = (run.view.json("candidates") or {}).get("candidates") or []
    chosen = next((row for row in rows if row["chosen"]), None)
    if chosen is None:
        return ""
    return (
        f"Trained without some of the labels, the method chosen sorted {fraction(chosen['score'])} "
        f"of the crops concerned rightly, {fraction(chosen['novel'])} of those of hidden classes."
    )


def _tiles(run: SortedRun) -> Iterator[Tile]:
    told = run.told.verdicts
    if told:
        safe = sum(verdict is Verdict.SAFE for verdict in told.values())
        mixed = sum(verdict is Verdict.MIXED for verdict in told.values())
        note = f"of {len(told):,} discovered, judged without truth"
        yield Tile("safe to name", f"{safe:,}", f"{note}; {mixed:,} look mixed", rank=1)


def _groups(run: SortedRun) -> Iterator[dict[str, Any]]:
    """Rows of the table by verdict; none without a space to judge in."""
    told = run.told
    if not told.verdicts:
        return
    stable = [(item.stability, i) for i, item in run.judged.items() if i in told.verdicts]
    falling = sorted((s, i) for s, i in stable if s is not None)[::-1]
    rank = {index: place + 1 for place, (_, index) in enumerate(falling)}
    home = _homes(run)
    for verdict in Verdict:
        mine = [index for index, found in told.verdicts.items() if found is verdict]
        mine.sort(key=lambda i: (-run.sizes[i], doubt(told, i), i))
        if mine:
            yield {
                "title": verdict.value,
                "kind": verdict.name.lower(),
                "count": plural(len(mine), "class", "classes"),
                "rows": [_row(run, index, home, rank) for index in mine],
            }
    known = [c.class_index for c in run.chosen[1] if c.known]
    if known:
        yield {
            "title": "known classes",
            "kind": "known",
            "count": plural(len(known), "class", "classes"),
            "rows": [_row(run, index, home, rank) for index in known],
        }


def _homes(run: SortedRun) -> dict[int, str]:
    """class_index -> where its card is, as a link from the page."""
    page, beside = run.chosen
    here = {c.class_index: f"#class-{c.class_index}" for c in page}
    return here | {
        c.class_index: f"{run.view.beside}/{leaf_name(place)}#class-{c.class_index}"
        for place, c in enumerate(beside)
    }


def _row(run: SortedRun, index: int, home: dict[int, str], rank: dict[int, int]) -> dict[str, Any]:
    item = run.judged.get(index)
    nearest = run.by_index.get(item.nearest) if item and item.nearest is not None else None
    return {
        "name": run.by_index[index].name,
        "home": home.get(index, ""),
        "size": run.sizes.get(index, 0),
        "judged": item,
        "nearest": nearest.name if nearest else "",
        "rank": rank.get(index),
    }
