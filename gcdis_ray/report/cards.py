"""One card per class: how large and how sure it is, what it is like, and a gallery of its crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcdis_ray.report.assigned import ClusterTruth, Crops
from gcdis_ray.report.gallery import FINE, PLAIN, Frame, Look, Thumb, draw_thumbs, pick_crops
from gcdis_ray.report.judging import Judged, Verdict
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.view import ClassView, RunView

MAX_CARDS = 60  # of discovered classes, and of known ones, on the page
_CHOSEN = 20  # of more classes: the largest, and as many of the least trusted


@dataclass(frozen=True)
class Gallery:
    """Which crops of classes are shown.

    Args:
        best, doubtful: of a discovered class; half as many of a known one.
        most: of all classes together.
        frame: how large each is.
    """

    best: int
    doubtful: int
    most: int
    frame: Frame


ON_PAGE = Gallery(16, 8, 800, FINE)  # with base64 below 5 MB
BESIDE = Gallery(6, 2, 40_000, PLAIN)  # below 130 MB


@dataclass(frozen=True)
class Told:
    """What is known of classes besides their crops, by class_index.

    Args:
        classes: all of them.
        truths: of an evaluation.
        judged: of every class with a crop, labeled or not; empty without a space to judge in.
        verdicts: of discovered classes.
    """

    classes: Mapping[int, ClassView]
    truths: Mapping[int, ClusterTruth]
    judged: Mapping[int, Judged]
    verdicts: Mapping[int, Verdict]


@dataclass(frozen=True)
class Card:
    """One class in the page. ``near`` are the nearest known classes, with their cosine."""

    view: ClassView
    size: int
    truth: ClusterTruth
    reliability: float | None
    probability: float | None
    near: Sequence[tuple[ClassView, float]]
    verdict: Verdict | None
    best: list[Thumb]
    doubtful: list[Thumb]


def choose_cards(
    classes: Sequence[ClassView], sizes: Mapping[int, int], told: Told
) -> tuple[list[ClassView], list[ClassView]]:
    """Which classes have a card on the page, and which beside it; either largest first.

    All that have crops, as long as they are few; of many discovered ones the largest and the
    least trusted, of many known ones none.
    """
    ranked = sorted(classes, key=lambda c: (-sizes.get(c.class_index, 0), c.class_index))
    known = [c for c in ranked if c.known]
    novel = [c for c in ranked if not c.known and sizes.get(c.class_index)]
    shown = set() if len(known) > MAX_CARDS else {c.class_index for c in known}
    if len(novel) <= MAX_CARDS:
        shown |= {c.class_index for c in novel}
    else:
        largest = [c.class_index for c in novel[:_CHOSEN]]
        others = [c.class_index for c in novel[_CHOSEN:]]
        shown |= {*largest, *sorted(others, key=lambda c: doubt(told, c))[:_CHOSEN]}
    page = [c for c in ranked if c.class_index in shown]
    return page, [c for c in (*novel, *known) if c.class_index not in shown]


def doubt(told: Told, class_index: int) -> tuple[int, float]:
    """To sort discovered classes by: the less trusted come first."""
    order = list(Verdict)
    verdict, judged = told.verdicts.get(class_index), told.judged.get(class_index)
    place = order.index(verdict) if verdict else len(order)
    return place, judged.silhouette if judged else 0.0


def class_cards(
    view: RunView,
    classes: Sequence[ClassView],
    crops: Crops,
    told: Told,
    gallery: Gallery = ON_PAGE,
) -> list[Card]:
    """Cards of some classes in their order, with as many thumbnails as the gallery allows."""
    members = crops.by_class()
    trust = crops.trust()
    none = np.zeros(0, dtype=np.int64)
    wished = sum((gallery.best + gallery.doubtful) // (2 if c.known else 1) for c in classes)
    most, share = gallery.most, min(1.0, gallery.most / max(wished, 1))
    chosen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for item in classes:
        here = members.get(item.class_index, none)
        scale = share / 2 if item.known else share
        picked = pick_crops(
            crops.crop_index[here],
            trust[here],
            max(1, int(gallery.best * scale)),
            int(gallery.doubtful * scale),
        )
        chosen[item.class_index] = picked if most > 0 else (none, none)
        most -= sum(map(len, chosen[item.class_index]))
    looks: dict[int, Look] = {}
    for item in classes:
        color = class_color(item.class_index, item.known)
        places = {int(crops.crop_index[n]): n for n in members.get(item.class_index, none)}
        for kind, picked in zip(("reliable", "doubtful"), chosen[item.class_index], strict=True):
            alt = f"{kind} example of {item.name}"
            looks |= {int(i): Look(color, alt, _hint(crops, places[int(i)])) for i in picked}
    table = view.table("crops")
    drawn = draw_thumbs(table, looks, gallery.frame) if table else {}

    def gallery_of(indices: np.ndarray) -> list[Thumb]:
        return [drawn[i] for i in indices.tolist() if i in drawn]

    cards = []
    for item in classes:
        here = members.get(item.class_index, none)
        best, doubtful = chosen[item.class_index]
        judged = told.judged.get(item.class_index)
        near = judged.nearest_known if judged and not item.known else ()
        cards.append(
            Card(
                item,
                len(here),
                told.truths.get(item.class_index, ClusterTruth()),
                _mean(crops.reliability[here]),
                _mean(crops.probability[here]),
                [(told.classes[index], cosine) for index, cosine in near if index in told.classes],
                told.verdicts.get(item.class_index),
                gallery_of(best),
                gallery_of(doubtful),
            )
        )
    return cards


def _hint(crops: Crops, place: int) -> str:
    parts = [f"probability {crops.probability[place]:.2f}"]
    if not np.isnan(crops.reliability[place]):
        parts.append(f"stability {crops.stability[place]:.2f}")
        parts.append(f"reliability {crops.reliability[place]:.2f}")
    return ", ".join(parts)


def _mean(values: np.ndarray) -> float | None:
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else None


def first_crops(view: RunView, number: int = 60) -> list[Thumb]:
    """Crops spread evenly over the table, for a run that has not sorted them yet."""
    table = view.table("crops")
    if table is None or not table.num_rows:
        return []
    spread = np.linspace(0, table.num_rows - 1, min(number, table.num_rows)).round()
    looks = {int(index): Look("#f2b134", "object found") for index in spread}
    return list(draw_thumbs(table, looks).values())
