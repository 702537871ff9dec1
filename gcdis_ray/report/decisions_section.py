"""What people decided of the discovered classes, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcdis_ray.report.findings import plural
from gcdis_ray.report.section import Section
from gcdis_ray.report.view import RunView, printable
from gcdis_ray.words import some

_SHOWN = 10  # classes of a sentence


def decisions_section(view: RunView) -> Section:
    """Sentences for the summary; none where no class was merged, split or rejected."""
    names = {row.class_index: row.name for row in view.classes()}
    sentences = list(_sentences(view.json("curation"), names))
    return Section("decisions", "Decisions", sentences=sentences)


def _sentences(curation: Mapping[str, Any], names: Mapping[int, str]) -> Iterator[str]:
    """Args: names: by ``class_index``."""
    clusters: dict[int, list[str]] = {}
    for which, name in zip(curation["class_of_cluster"], curation["discovered"], strict=True):
        clusters.setdefault(which, []).append(printable(name))
    rejected = clusters.pop(-1, [])
    joined = [
        f"{_listed(found)} into {names[which]}"
        for which, found in clusters.items()
        if len(found) > 1
    ]
    if joined:
        yield f"People merged {some(joined, _SHOWN, str)}."
    if parts := [name for which, name in names.items() if which not in clusters]:
        yield f"People split off {_listed(parts)}."
    if rejected or curation["rejected_crops"]:
        what = f"rejected {_listed(rejected)}" if rejected else "rejected parts they had split off"
        yield f"People {what}: {plural(curation['rejected_crops'], 'crop')} in no class."


def _listed(names: list[str]) -> str:
    return some(names, _SHOWN, str)
