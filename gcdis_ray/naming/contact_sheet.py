"""The clusters of a run as one HTML file: to look through, to print, to send to who knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gcdis_ray.errors import StorageError
from gcdis_ray.naming.clusters import Cluster, Suggestion
from gcdis_ray.naming.desk import Desk
from gcdis_ray.naming.listing import BEST, DOUBTFUL, NEAR, OF_HALF, Suggest, picked
from gcdis_ray.report.gallery import Thumb, read_crops, thumbs
from gcdis_ray.report.html import render
from gcdis_ray.report.palette import class_color

_MAX_THUMBS = 1_300  # about 4.4 kB each, a third more in base64: below 8 MB


@dataclass(frozen=True)
class SheetCard:
    """A cluster with pictures."""

    cluster: Cluster
    names: list[str]
    best: list[Thumb]
    doubtful: list[Thumb]
    near: list[tuple[Cluster, float]]
    suggestion: Suggestion | None
    halves: list[list[Thumb]]


def write_sheet(desk: Desk, output: str | None = None, namer: Suggest | None = None) -> str:
    """Where the page has been written.

    Args:
        output: a file; None: ``reports/<name>-names.html`` of the run's storage.

    Raises:
        StorageError: it cannot be written.
    """
    page = contact_sheet(desk, namer).encode()
    if output is None:
        name = f"reports/{desk.run.name}-names.html"
        desk.run.storage.write(name, page)
        return f"{desk.run.storage.uri}/{name}"
    try:
        Path(output).write_bytes(page)
    except OSError as error:
        raise StorageError(error.strerror or str(error), where=f"--output {output}") from error
    return str(Path(output).absolute())


def contact_sheet(desk: Desk, namer: Suggest | None = None) -> str:
    """One self-contained page of at most about 10 MB: discovered clusters, the largest first, with
    as many pictures as it can carry; those without any, and known classes, in a table."""
    standing = desk.look()
    discovered = [cluster for cluster in standing.clusters if not cluster.known]
    discovered.sort(key=lambda cluster: (-len(cluster.crops_M), cluster.number))
    pictured = discovered[:_MAX_THUMBS]
    share = min(1.0, _MAX_THUMBS / max(1, len(pictured) * (BEST + DOUBTFUL + 2 * OF_HALF)))
    cards = _cards(desk, pictured, standing.clusters, share, namer)
    return render(
        "contact_sheet.html.j2",
        {
            "run": desk.run,
            "ranked_by": "reliability" if desk.crops.by_reliability else "probability",
            "cards": cards,
            "rest": discovered[len(pictured) :],
            "known": [cluster for cluster in standing.clusters if cluster.known],
            "num_discovered": len(discovered),
            "num_named": sum(cluster.named for cluster in discovered),
            "num_rejected": standing.num_rejected,
        },
        [f".k{card.cluster.number}{{--k:{_color(card.cluster)}}}" for card in cards],
    )


def _cards(
    desk: Desk,
    some: Sequence[Cluster],
    every: Sequence[Cluster],
    share: float,
    namer: Suggest | None,
) -> list[SheetCard]:
    chosen: list[tuple[list[int], ...]] = []
    suggestions = [desk.surroundings.split(cluster) for cluster in some]
    for cluster, suggestion in zip(some, suggestions, strict=True):
        best, doubtful = picked(cluster, max(1, int(BEST * share)), int(DOUBTFUL * share))
        chosen.append((best, doubtful, *_halves(cluster, suggestion, int(OF_HALF * share))))
    wanted = {crop for parts in chosen for part in parts for crop in part}
    rows = read_crops(desk.crops.pictures, sorted(wanted))
    cards: list[SheetCard] = []
    near = desk.surroundings.near(some, every, NEAR)
    for cluster, suggestion, others, parts in zip(some, suggestions, near, chosen, strict=True):
        best, doubtful, *halves = (
            thumbs(part, rows, color=_color(cluster), alt=cluster.name, hints={}) for part in parts
        )
        names = namer(cluster) if namer and not cluster.named else []
        cards.append(SheetCard(cluster, names, best, doubtful, others, suggestion, halves))
    return cards


def _halves(cluster: Cluster, suggestion: Suggestion | None, most: int) -> list[list[int]]:
    if suggestion is None:
        return []
    return [half[:most].tolist() for half in suggestion.halves_of(cluster)]


def _color(cluster: Cluster) -> str:
    return class_color(cluster.number, cluster.known)
