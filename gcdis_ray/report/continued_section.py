"""What new images did to the classes of an earlier run: crops old and new side by side, how each
class has drifted, the new ones, and what makes no class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.report.assigned import Crops, read_crops_assigned
from gcdis_ray.report.findings import fraction, plural
from gcdis_ray.report.gallery import Thumb, read_crops, thumbs
from gcdis_ray.report.html import fill
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.section import CLUSTERS, Section, Tile
from gcdis_ray.report.view import RunView, printable

_CLASSES = 40  # with pictures; of the others the numbers
_PICTURES = 6  # of a class, of each kind
_LEFT = 36  # pictures of what makes no class
_BESIDE = 1  # rank after the galleries of classes


@dataclass(frozen=True)
class Drifted:
    """A class in the page.

    Args:
        row: of document ``continued``.
        name: fit to be shown.
        shift: distance of means over spread, in words.
        before, now: crops of the earlier run and new ones.
    """

    row: Mapping[str, Any]
    name: str
    share: str
    share_before: str
    shift: str
    before: list[Thumb]
    now: list[Thumb]


def continued_section(view: RunView) -> Section:
    """Of a run that continues another one."""
    told = view.json("continued") or {}
    rows = told.get("classes", [])
    new = [row for row in rows if row["new"]]
    threshold = told.get("threshold", {})

    def body() -> Markup:
        crops, table = read_crops_assigned(view), view.table("crops")
        if crops is None or table is None:
            return Markup("")
        drifted = _drifted(view, rows, crops)
        left = _left(view)
        return fill(
            "continued",
            pictured=[entry for entry in drifted if entry.before or entry.now],
            drifted=drifted,
            left=thumbs(left, read_crops(table, left), color="#8a9099", alt="no class", hints={}),
            num_left=told["left"],
            told=told,
            threshold=_threshold(threshold),
        )

    return Section(
        "continued",
        "New images",
        body,
        CLUSTERS + _BESIDE,
        heading="What the new images brought",
        tiles=[Tile("new classes", f"{len(new):,}", "besides those of the earlier run", hot=True)],
        sentences=[
            f"Of {plural(told['crops'], 'new object')}, {told['assigned']:,} are of classes of the "
            f"earlier run, whose ids are unchanged; {told['candidates']:,} fit none, and make "
            f"{plural(len(new), 'new class', 'new classes')}, {told['left']:,} of them none."
        ]
        if told
        else [],
    )


def _threshold(found: Mapping[str, Any]) -> str:
    if found.get("given"):
        return f"The distance beyond which a crop is a candidate, {found['value']:.3f}, was given."
    return (
        f"The distance beyond which a crop is a candidate is {found['value']:.3f}: with each of "
        f"{plural(found['classes'], 'class', 'classes')} of the earlier run withheld in turn, "
        f"{fraction(found['found'])} of its crops lie beyond it, and {fraction(found['mistaken'])} "
        "with all classes in place."
    )


def _drifted(view: RunView, rows: Sequence[Mapping[str, Any]], crops: Crops) -> list[Drifted]:
    """New classes first, then those that have drifted most."""
    order = sorted(
        rows, key=lambda row: (not row["new"], -(row["shift"] or 0), -row["crops"], row["name"])
    )
    shown = [row["class_index"] for row in order if row["crops"] or row["crops_before"]][:_CLASSES]
    before, now = _kept_pictures(view, shown), _new_pictures(view, shown, crops)
    names = {item.class_index: item.name for item in view.classes()}  # as people call them
    found = []
    for row in order:
        index, known = row["class_index"], row["known"]
        color, name = class_color(index, known), names.get(index) or printable(row["name"])
        old, new = before.get(index, {}), now.get(index, {})
        found.append(
            Drifted(
                row,
                name,
                fraction(row["share"]),
                fraction(None if row["new"] else row["share_before"]),
                "–" if row["shift"] is None else f"{row['shift']:.2f}",
                thumbs(list(old), old, color=color, alt=f"earlier {name}", hints={}),
                thumbs(list(new), new, color=color, alt=f"new {name}", hints={}),
            )
        )
    return found


def _kept_pictures(view: RunView, shown: Sequence[int]) -> dict[int, dict[int, dict[str, Any]]]:
    kept, found = view.table("kept_crops"), defaultdict[int, dict[int, dict[str, Any]]](dict)
    if kept is None:
        return found
    wanted = set(shown)
    for shard in kept.iter_shards(["class_index", "crop_index", "jpeg", "mask_png"]):
        here = np.flatnonzero(shard["jpeg"].is_valid().to_numpy())
        for row in shard.take(here).to_pylist():
            mine = found[row["class_index"]] if row["class_index"] in wanted else {}
            if len(mine) < _PICTURES:
                mine[len(mine)] = row  # numbers of crops of several runs may be equal
    return found


def _new_pictures(
    view: RunView, shown: Sequence[int], crops: Crops
) -> dict[int, dict[int, dict[str, Any]]]:
    """Spread over the trust in them."""
    table, chosen, members = view.table("crops"), dict[int, list[int]](), crops.by_class()
    for index in shown:
        mine = members.get(index, np.empty(0, np.int64))
        mine = mine[np.argsort(-crops.trust()[mine], kind="stable")]
        some = np.linspace(0, len(mine) - 1, min(_PICTURES, len(mine))).round().astype(int)
        chosen[index] = crops.crop_index[mine[some]].tolist()
    rows = read_crops(table, [c for each in chosen.values() for c in each]) if table else {}
    return {index: {c: rows[c] for c in each} for index, each in chosen.items()}


def _left(view: RunView) -> list[int]:
    """Some crops of no class."""
    table, found = view.table("partition"), list[int]()
    if table is None:
        return found
    for shard in table.iter_shards():
        rows = shard["cluster_id"].to_numpy() < 0
        found += shard["crop_index"].to_numpy()[rows].tolist()
    some = np.linspace(0, len(found) - 1, min(_LEFT, len(found))).round().astype(int)
    return [found[place] for place in some]
