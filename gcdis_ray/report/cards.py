"""One card per class: how large and how sure it is, and a gallery of its crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gcdis_ray.report.assigned import ClusterTruth, Crops
from gcdis_ray.report.gallery import Thumb, pick_crops, read_crops, thumbs
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.view import ClassView, RunView

_MAX_THUMBS = 1_300  # about 4.4 kB each, a third more in base64: below 8 MB
_BEST, _DOUBTFUL = 16, 8  # crops of a discovered class, as far as the budget allows


@dataclass(frozen=True)
class Card:
    """One class in the page."""

    view: ClassView
    size: int
    truth: ClusterTruth
    reliability: float | None
    probability: float | None
    best: list[Thumb]
    doubtful: list[Thumb]


def class_cards(
    view: RunView, classes: Sequence[ClassView], crops: Crops, truths: Mapping[int, ClusterTruth]
) -> list[Card]:
    """Cards of all classes, largest first, with as many thumbnails as the page can carry."""
    members = {c.class_index: crops.of_class(c.class_index) for c in classes}
    ranked = sorted(classes, key=lambda c: (-len(members[c.class_index]), c.class_index))
    trust = crops.trust()
    wished = sum((_BEST + _DOUBTFUL) // (2 if c.known else 1) for c in classes)
    share = min(1.0, _MAX_THUMBS / max(wished, 1))
    chosen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    left = _MAX_THUMBS
    for item in ranked:
        here = members[item.class_index]
        scale = share / 2 if item.known else share
        picked = pick_crops(
            crops.crop_index[here],
            trust[here],
            max(1, int(_BEST * scale)),
            int(_DOUBTFUL * scale),
        )
        chosen[item.class_index] = picked if left > 0 else (here[:0], here[:0])
        left -= sum(map(len, chosen[item.class_index]))
    table = view.table("crops")
    wanted = np.concatenate([part for pair in chosen.values() for part in pair] or [[]])
    rows = read_crops(table, wanted.astype(np.int64).tolist()) if table else {}
    position = {int(index): place for place, index in enumerate(crops.crop_index)}

    def draw(item: ClassView, indices: np.ndarray, what: str) -> list[Thumb]:
        hints = {int(i): _hint(crops, position[int(i)]) for i in indices}
        color = class_color(item.class_index, item.known)
        return thumbs(
            indices.tolist(), rows, color=color, alt=f"{what} of {item.name}", hints=hints
        )

    cards = []
    for item in ranked:
        here = members[item.class_index]
        best, doubtful = chosen[item.class_index]
        cards.append(
            Card(
                item,
                len(here),
                truths.get(item.class_index, ClusterTruth()),
                _mean(crops.reliability[here]),
                _mean(crops.probability[here]),
                draw(item, best, "reliable example"),
                draw(item, doubtful, "doubtful example"),
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
    indices = spread.astype(np.int64).tolist()
    rows = read_crops(table, indices)
    return thumbs(indices, rows, color="#f2b134", alt="object found", hints={})
