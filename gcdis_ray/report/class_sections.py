"""Objects and the classes they were sorted into: galleries, sizes, and how far they are trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from markupsafe import Markup

from gcdis_ray.masks.instance_masks import count_origins
from gcdis_ray.report import figures
from gcdis_ray.report.assigned import Crops, cluster_truths, read_crops_assigned
from gcdis_ray.report.cards import Card, class_cards, first_crops
from gcdis_ray.report.findings import plural
from gcdis_ray.report.html import fill
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.section import CLASSES, CLUSTERS, Section, Tile
from gcdis_ray.report.series import image_counts, sample_points
from gcdis_ray.report.view import ClassView, RunView

_MAX_HEROES = 12
_MAX_POINTS = 4_000  # of an embedding map


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
    return [] if crops is None else [_galleries(view, crops, metrics or {}), _clusters(view, crops)]


def _galleries(view: RunView, crops: Crops, metrics: Mapping[str, Any]) -> Section:
    classes = view.classes()
    truths = cluster_truths(view, metrics)
    draw = cache(lambda: class_cards(view, classes, crops, truths))
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
        lambda: _cards(draw()),
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
        aside=lambda: _heroes(draw()),
        style="\n".join(
            f".k{c.class_index}{{--k:{class_color(c.class_index, c.known)}}}" for c in classes
        ),
    )


def _cards(cards: Sequence[Card]) -> Markup:
    if not any(c.view.known or c.size for c in cards):
        return Markup("")
    return fill(
        "classes",
        discovered=[c for c in cards if not c.view.known and c.size],
        empty=[c.view.name for c in cards if not c.view.known and not c.size],
        known=[c for c in cards if c.view.known],
        has_truth=any(c.truth.purity is not None for c in cards),
        shown=sum(len(c.best) + len(c.doubtful) for c in cards),
        total=sum(c.size for c in cards),
    )


def _heroes(cards: Sequence[Card]) -> Markup:
    heroes = [c for c in cards if not c.view.known and c.best][:_MAX_HEROES]
    return fill("heroes", heroes=heroes) if heroes else Markup("")


def _clusters(view: RunView, crops: Crops) -> Section:
    def body() -> Markup:
        if not len(crops.crop_index):
            return Markup("")
        classes = view.classes()
        indices, counts = np.unique(crops.class_index, return_counts=True)
        sizes = dict(zip(indices.tolist(), counts.tolist(), strict=True))
        drawn, points = _embedding_map(view, classes, crops)
        return fill(
            "clusters",
            map=drawn,
            map_points=points,
            sizes=figures.size_figure(classes, sizes),
            trust=figures.trust_figure(_trust_columns(crops, classes)),
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


def _embedding_map(
    view: RunView, classes: Sequence[ClassView], crops: Crops
) -> tuple[Markup | None, int]:
    """Crops before and after discovery, in the colours of the classes they ended in."""
    final = dict(zip(crops.crop_index.tolist(), crops.class_index.tolist(), strict=True))
    panels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for title, member in (
        ("before: frozen embedding", "embeddings"),
        ("after: discovery", "assignments"),
    ):
        sampled = sample_points(view, member, _MAX_POINTS)
        if sampled is not None:
            index, points = sampled
            unlabeled = np.array([i in final for i in index.tolist()])
            colors = np.array([final[i] for i in index[unlabeled].tolist()], dtype=np.int64)
            panels[title] = (points[unlabeled], colors)
    if not panels:
        return None, 0
    return figures.embedding_figure(panels, classes), max(len(p) for p, _ in panels.values())
