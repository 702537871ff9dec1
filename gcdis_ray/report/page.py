"""The report of a run as one HTML file: what its stages offer, and what every run has. What would
be too much for it (galleries of thousands of classes) is in pages beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import yaml

from gcdis_ray.report import figures
from gcdis_ray.report.html import fill, render
from gcdis_ray.report.section import REPRODUCE, STAGES, TRAINING, Section, arrange
from gcdis_ray.report.series import read_history
from gcdis_ray.report.view import RunView


@dataclass(frozen=True)
class Report:
    """HTML documents, each self-contained.

    Args:
        page: of at most about 8 MB, whatever the run.
        leaves: name and content of each file in the folder beside the page, each made when it is
            asked for, to be asked for once; none of most runs.
    """

    page: str
    leaves: Iterator[tuple[str, str]]


def write_report(view: RunView, offered: Iterable[Section] = ()) -> Report:
    """The report on a run, finished or not. Equal views give equal pages.

    Args:
        offered: by the stages that are done, in the recipe's order.

    Raises:
        ArtifactError: a stored artifact is damaged.
    """
    told = arrange(offered)
    placed = sorted([*told, *_every_run(view, told)], key=lambda section: section.rank)
    missing = [row["name"] for row in view.stages if row["name"] not in view.artifacts]
    sentences = [sentence for section in told for sentence in section.sentences]
    if not view.artifacts:
        sentences = ["Nothing has been computed yet. Run the pipeline to fill this page."]
    resting = f"{view.name}: on the way" if missing or not view.artifacts else view.name
    tiles = [tile for section in placed for tile in section.tiles]
    page = render(
        "page.html.j2",
        {
            "view": view,
            "headline": next((s.headline for s in placed if s.headline), resting),
            "sentences": sentences,
            "aside": next((s.aside for s in placed if s.aside), ""),
            "tiles": sorted(tiles, key=lambda tile: tile.rank),
            "missing": missing,
            "sections": [section for section in placed if section.body],
        },
        [section.style for section in placed if section.style],
    )
    leaves = (
        (leaf.name, render("leaf.html.j2", {"view": view, "leaf": leaf}, [leaf.style]))
        for section in told
        for leaf in section.leaves()
    )
    return Report(page, leaves)


def _every_run(view: RunView, told: Sequence[Section]) -> Iterator[Section]:
    """How the networks trained, what the stages cost, and how to get all this again."""
    histories = {name: read_history(made) for name, made in view.each("history").items()}
    curves = {
        name: figures.training_figure(name, found) for name, found in histories.items() if found
    }
    if curves:
        yield Section("training", "Training", fill("training", curves=curves), TRAINING)
    yield Section("stages", "Stages", fill("stages", stages=view.stages), STAGES)
    again = fill(
        "reproduce",
        view=view,
        made_from=_made_from(view),
        definitions=[pair for section in told for pair in section.definitions],
        config=yaml.safe_dump(dict(view.config), sort_keys=False, allow_unicode=True),
        versions=_versions(view),
    )
    yield Section("reproduce", "Reproduce", again, REPRODUCE, heading="To get this again")


def _versions(view: RunView) -> list[tuple[str, str]]:
    """Package and the versions that the run's artifacts were made with."""
    found: dict[str, set[str]] = {}
    for artifact in view.artifacts.values():
        for package, version in artifact.manifest.versions.items():
            found.setdefault(package, set()).add(version)
    return [(package, ", ".join(sorted(found[package]))) for package in sorted(found)]


def _made_from(view: RunView) -> dict[str, list[tuple[str, str]]]:
    """Node -> the nodes that gave what it took, with their keys."""
    node_of = {artifact.key: name for name, artifact in view.artifacts.items()}
    return {
        name: sorted({(node_of.get(k, m), k) for m, k in artifact.manifest.inputs.items()})
        for name, artifact in view.artifacts.items()
    }
