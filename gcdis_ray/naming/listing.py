"""What a page shows of the clusters, and what ``--json`` prints: plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from gcdis_ray.errors import CurationError
from gcdis_ray.naming.clusters import Cluster, Suggestion
from gcdis_ray.naming.desk import Desk, Standing, in_words, last_standing
from gcdis_ray.report.gallery import pick_crops
from gcdis_ray.report.palette import class_color
from gcdis_ray.words import shown

Order = Literal["largest", "doubtful", "number"]
Which = Literal["discovered", "unnamed", "named", "known"]
Suggest = Callable[[Cluster], list[str]]
"""Names that a cluster may have, the likeliest first."""
PAGE = 24  # clusters
BEST, DOUBTFUL, NEAR, OF_HALF = 12, 8, 5, 6
MORE = 60  # crops of a cluster at a time
_HISTORY = 12  # acts


@dataclass(frozen=True)
class Query:
    """Which clusters, in what order.

    Raises:
        CurationError: there is no such choice.
    """

    which: Which = "discovered"
    order: Order = "largest"
    find: str = ""
    page: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("which", Which), ("order", Order)):
            if getattr(self, name) not in get_args(kind):
                raise CurationError(
                    f"{shown(getattr(self, name))} is none of {', '.join(get_args(kind))}",
                    where=name,
                )
        if self.page < 0:
            raise CurationError("must not be negative", where="page")

    def chosen(self, clusters: Sequence[Cluster]) -> list[Cluster]:
        """All that fit, in order, on whatever page."""
        fits = {
            "discovered": lambda c: not c.known,
            "unnamed": lambda c: not c.known and not c.named,
            "named": lambda c: not c.known and c.named,
            "known": lambda c: c.known,
        }[self.which]
        ranks = {
            "largest": lambda c: (-len(c.crops_M), c.number),
            "doubtful": lambda c: (1.0 if c.probability is None else c.probability, c.number),
            "number": lambda c: c.number,
        }
        text = self.find.strip().casefold()
        found = (c for c in clusters if fits(c) and (not text or _is_called(c, text)))
        return sorted(found, key=ranks[self.order])


def _is_called(cluster: Cluster, text: str) -> bool:
    return text in cluster.name.casefold() or text == str(cluster.number)


def page_of(desk: Desk, standing: Standing, query: Query) -> dict[str, Any]:
    """One page of clusters, and what all pages say. Its pictures are wanted from now on."""
    found = query.chosen(standing.clusters)
    last = max(0, len(found) - 1) // PAGE
    page = min(query.page, last)
    here = found[page * PAGE : (page + 1) * PAGE]
    with desk.lock:
        cards = list(_cards(desk, standing, here))
    desk.pictures.want(crop for card in cards for crop in _pictured(card))
    discovered = [c for c in standing.clusters if not c.known]
    undo = last_standing(standing.acts)
    return {
        "run": desk.run.name,
        "ranked_by": "reliability" if desk.crops.by_reliability else "probability",
        "seen": len(standing.acts),
        "undo": in_words(undo) if undo else None,
        "acts": [in_words(act) for act in standing.acts[-_HISTORY:]],
        "discovered": len(discovered),
        "named": sum(c.named for c in discovered),
        "known": len(standing.clusters) - len(discovered),
        "rejected": standing.num_rejected,
        "found": len(found),
        "page": page,
        "pages": last + 1,
        "first": page * PAGE,
        "clusters": cards,
    }


def crops_of(desk: Desk, cluster: Cluster, start: int) -> dict[str, Any]:
    """Some crops of a cluster from the ``start``-th most trusted on. They are wanted from now
    on."""
    crops = cluster.crops_M[start : start + MORE].tolist()
    desk.pictures.want(crops)
    return {"crops": crops, "total": len(cluster.crops_M)}


def row_of(cluster: Cluster) -> dict[str, Any]:
    """A cluster in a few words."""
    return {
        "number": cluster.number,
        "name": cluster.name,
        "named": cluster.named,
        "known": cluster.known,
        "size": len(cluster.crops_M),
        "labeled": len(cluster.labeled_L),
        "probability": None if cluster.probability is None else round(cluster.probability, 4),
        "crop": cluster.crop,
    }


def picked(cluster: Cluster, best: int, doubtful: int) -> tuple[list[int], list[int]]:
    """The most and the least trusted unlabeled crops, without overlap. Of a class without any, some
    labeled ones."""
    crops_M = cluster.crops_M
    if not len(crops_M):
        return cluster.labeled_L[:best].tolist(), []
    falling_M = -np.arange(len(crops_M), dtype=np.float64)  # they are in order
    first, last = pick_crops(crops_M, falling_M, best, doubtful)
    return first.tolist(), last.tolist()


def _cards(desk: Desk, standing: Standing, here: Sequence[Cluster]) -> Iterator[dict[str, Any]]:
    near = desk.surroundings.near(here, standing.clusters, NEAR)
    for cluster, others in zip(here, near, strict=True):
        best, doubtful = picked(cluster, BEST, DOUBTFUL)
        suggestion = desk.surroundings.split(cluster)
        yield row_of(cluster) | {
            "color": class_color(cluster.number, cluster.known),
            "best": best,
            "doubtful": doubtful,
            "near": [row_of(other) | {"cosine": round(cosine, 3)} for other, cosine in others],
            "split": suggestion and _halves(cluster, suggestion),
        }


def _halves(cluster: Cluster, suggestion: Suggestion) -> dict[str, Any]:
    halves = suggestion.halves_of(cluster)
    return {
        "silhouette": round(suggestion.silhouette, 3),
        "apart": round(suggestion.apart, 2),
        "chance": round(suggestion.chance, 2),
        "sizes": [len(half) for half in halves],
        "crops": [half[:OF_HALF].tolist() for half in halves],
    }


def _pictured(card: dict[str, Any]) -> Iterator[int]:
    yield from card["best"]
    yield from card["doubtful"]
    yield from (other["crop"] for other in card["near"])
    if card["split"]:
        for half in card["split"]["crops"]:
            yield from half
