"""What a report is made from: one run's artifacts, its stages' states, and its classes.

It speaks of members; which stage gives one is the recipe's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, TypedDict

from gcdis_ray.report.projection import Projection
from gcdis_ray.store.artifacts import Artifact, Table


class StageRow(TypedDict):
    """State of one stage, as ``gcdis status --json`` prints it."""

    name: str
    key: str
    state: str  # done | interrupted | missing
    seconds: float | None
    rows: int | None
    bytes: int | None
    read_bytes: NotRequired[int | None]
    written_bytes: NotRequired[int | None]
    progress: NotRequired[dict[str, Any] | None]  # how far one is that is begun
    uri: str


@dataclass(frozen=True)
class ClassView:
    """One class of the run: known from the labels, or discovered."""

    class_index: int
    name: str
    known: bool


@dataclass(frozen=True)
class RunView:
    """One run, finished or not.

    Args:
        name: of the run, for the title.
        recipe: of the pipeline.
        seed: of the run.
        config: the whole config as plain data.
        storage: folder or prefix that holds the artifacts.
        stages: states in the recipe's order.
        artifacts: node -> its committed artifact, in the recipe's order; what is not done is
            absent.
        names: what people call classes, by ``class_index`` of the curated ones.
        beside: folder beside the page, for what is too much for it, as the page's links name it.
        projection: how crops come to lie on the map.
    """

    name: str
    recipe: str
    seed: int
    config: Mapping[str, Any]
    storage: str
    stages: Sequence[StageRow]
    artifacts: Mapping[str, Artifact]
    names: Mapping[int, str] = field(default_factory=dict)
    beside: str = "report_files"
    projection: Projection = "pca"

    def of(self, member: str) -> Artifact | None:
        """The artifact of the last node that has the member, or None while there is none."""
        return next((a for a in reversed(list(self.artifacts.values())) if a.has(member)), None)

    def each(self, member: str) -> dict[str, Artifact]:
        """Node -> its artifact, for all that have the member."""
        return {name: a for name, a in self.artifacts.items() if a.has(member)}

    def until(self, name: str) -> RunView:
        """The run as a node has left it: without what came after."""
        names = list(self.artifacts)
        there = {n: self.artifacts[n] for n in names[: names.index(name) + 1]}
        return replace(self, artifacts=there)

    def without(self, names: Collection[str]) -> RunView:
        """The run without what some nodes have given."""
        there = {name: a for name, a in self.artifacts.items() if name not in names}
        return replace(self, artifacts=there)

    def table(self, member: str) -> Table | None:
        """The last such table, or None while it does not exist."""
        artifact = self.of(member)
        return artifact.table(member) if artifact else None

    def json(self, member: str) -> Any:
        """The last such JSON document, or None while it does not exist."""
        artifact = self.of(member)
        return artifact.json(member) if artifact else None

    def classes(self) -> list[ClassView]:
        """Known classes, then discovered ones; only known ones before discovery."""
        discovered = self.json("discovered_classes")
        rows = discovered if discovered is not None else self.json("classes") or []
        names = self.names if self.of("partition") else {}
        return [
            ClassView(
                int(row["class_index"]),
                printable(_name(row, names)),
                bool(row.get("known", discovered is None)),
            )
            for row in rows
        ]

    def category_names(self) -> dict[int, str]:
        """The data set's own names by category_id: all of them where ground truth exists."""
        rows = [*(self.json("classes") or []), *(self.truth_categories() or [])]
        return {int(row["category_id"]): printable(row["name"]) for row in rows}

    def truth_categories(self) -> list[dict[str, Any]] | None:
        """Categories of the ground truth with ``known`` and ``class_index``, if there is any."""
        return self.json("categories")


def _name(row: Mapping[str, Any], names: Mapping[int, str]) -> str:
    which = int(row["class_index"])
    return names.get(which) or row.get("name") or f"class {which}"


def printable(text: object) -> str:
    """User text that XML can hold: control characters and lone surrogates become U+FFFD."""
    safe = str(text).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in safe)
