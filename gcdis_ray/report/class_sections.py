"""Objects and the classes they were sorted into: galleries, sizes, and how far they are trusted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.masks.instance_masks import count_origins
from gcdis_ray.report import figures
from gcdis_ray.report.assigned import Crops, read_crops_assigned
from gcdis_ray.report.cards import Card, first_crops
from gcdis_ray.report.crop_map import crop_map
from gcdis_ray.report.findings import plural
from gcdis_ray.report.html import fill
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.section import CLASSES, CLUSTERS, Leaf, Section, Tile
from gcdis_ray.report.series import image_counts
from gcdis_ray.report.sorted_run import SortedRun
from gcdis_ray.report.trust_section import CARDS_PER_LEAF, judged_in, leaf_name, trust_section
from gcdis_ray.report.view import ClassView, RunView

_MAX_HEROES = 12


def object_sections(view: RunView) -> list[Section]:
    """Objects that were cut out, while nothing has sorted them into classes."""

    def body() -> Markup:
        crops = first_crops(view)
        return fill("objects", crops=crops) if crops else Markup("")

    return [
        Section("masks", "Masks", sentences=_made_masks(view)),
        Section(
            "classes",
            "Classes",
            body,
            CLASSES,
            heading="Objects found",
            sentences=["Classes have not been discovered yet."],
        ),
    ]


def _made_masks(view: RunView) -> list[str]:
    """Whose masks were made, not annotated; nothing where every labeled object had one."""
    made, crops = view.table("instance_masks"), view.table("crops")
    if made is None or crops is None:
        return []
    counts = count_origins(crops, made)
    total = sum(counts.values())
    how = {"model": "made by the proposer from their boxes", "box": "the boxes themselves"}
    return [
        f"Of the {plural(total, 'labeled crop')}, {counts[origin]:,} came with a box only: "
        f"their masks are {text}."
        for origin, text in how.items()
        if counts[origin]
    ]


def class_sections(view: RunView, metrics: Mapping[str, Any] | None = None) -> list[Section]:
    """The classes one by one and all together; nothing while no crop has been sorted.

    Args:
        metrics: of an evaluation, which knows the true classes.
    """
    crops = read_crops_assigned(view)
    if crops is None:
        return []
    run = SortedRun(view, crops, metrics or {})
    return [_galleries(run), trust_section(run), _clusters(run)]


def _galleries(run: SortedRun) -> Section:
    view, classes, crops = run.view, run.classes, run.crops
    new = [c.class_index for c in classes if not c.known]
    novel = np.isin(crops.class_index, new)
    used, num_known = len(np.unique(crops.class_index[novel])), len(classes) - len(new)
    note = f"besides {plural(num_known, 'known class', 'known classes')}"
    made = view.of("assignments")
    if made and made.has("pruning"):
        note += f", {made.json('pruning')['num_outputs']:,} outputs trained"
    nameless = f"{plural(used, 'class', 'classes')} that nobody had named"
    return Section(
        "classes",
        "Classes",
        lambda: _cards(run),
        CLASSES,
        heading="Discovered classes",
        tiles=[Tile("classes discovered", f"{used:,}", note, hot=True)],
        sentences=[
            f"In them, {plural(len(crops.crop_index), 'object')} were found; "
            f"{int(novel.sum()):,} of these were sorted into {nameless}, "
            f"{int((~novel).sum()):,} into known classes."
        ],
        headline=f"{nameless}, "
        f"found in {plural(image_counts(view).get('unlabeled', 0), 'unlabeled image')}",
        aside=lambda: _heroes(run.cards),
        style=_colors(classes),
        leaves=lambda: _leaves(run),
    )


def _colors(classes: Iterable[ClassView]) -> str:
    return "\n".join(
        f".k{c.class_index}{{--k:{class_color(c.class_index, c.known)}}}" for c in classes
    )


def _cards(run: SortedRun) -> Markup:
    cards = run.cards
    if not any(c.view.known or c.size for c in cards):
        return Markup("")
    return fill(
        "classes",
        discovered=[c for c in cards if not c.view.known],
        empty=[c.name for c in run.classes if not c.known and c.class_index not in run.sizes],
        known=[c for c in cards if c.view.known],
        has_truth=any(c.truth.purity is not None for c in cards),
        judged_in=judged_in(run),
        shown=sum(len(c.best) + len(c.doubtful) for c in cards),
        total=sum(c.size for c in cards),
        beside=len(run.chosen[1]),
    )


def _leaves(run: SortedRun) -> Iterator[Leaf]:
    """Cards that the page has no room for, a page beside it for some dozens."""
    if not run.chosen[1]:
        return
    cards = run.cards_beside()
    for first in range(0, len(cards), CARDS_PER_LEAF):
        here = cards[first : first + CARDS_PER_LEAF]
        title = f"Classes {first + 1:,} to {first + len(here):,} of {len(cards):,}, by size"
        body = fill("leaf_cards", cards=here)
        yield Leaf(leaf_name(first), title, body, _colors(card.view for card in here))


def _heroes(cards: Sequence[Card]) -> Markup:
    heroes = [c for c in cards if not c.view.known and c.best][:_MAX_HEROES]
    return fill("heroes", heroes=heroes) if heroes else Markup("")


def _clusters(run: SortedRun) -> Section:
    titles = {"embeddings": "before: frozen embedding", "assignments": "after: discovery"}

    def body() -> Markup:
        if not len(run.crops.crop_index):
            return Markup("")
        spaces = {titles[member]: points for member, points in run.spaces.items()}
        return fill(
            "clusters",
            map=crop_map(run.view, spaces, run.class_N, run.crops.crop_index, run.by_index),
            sizes=figures.size_figure(run.classes, run.sizes),
            trust=figures.trust_figure(_trust_columns(run.crops, run.classes)),
        )

    return Section("clusters", "Clusters", body, CLUSTERS, heading="The shape of the result")


def _trust_columns(
    crops: Crops, classes: Sequence[ClassView]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    novel = np.isin(crops.class_index, [c.class_index for c in classes if not c.known])
    columns = {"probability": crops.probability}
    if not np.isnan(crops.reliability).all():
        columns |= {"stability": crops.stability, "reliability": crops.reliability}
    finite = {title: ~np.isnan(values) for title, values in columns.items()}
    return {
        title: (values[~novel & finite[title]], values[novel & finite[title]])
        for title, values in columns.items()
    }
