"""What a report is made from: one run's artifacts, its stages' states, and its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

from gcdis_ray.store.artifacts import Artifact, Table


class StageRow(TypedDict):
    """State of one stage, as ``gcdis status --json`` prints it."""

    name: str
    key: str
    state: str  # cached | done | missing | failed | ...
    seconds: float | None
    rows: int | None
    bytes: int | None
    read_bytes: NotRequired[int | None]
    written_bytes: NotRequired[int | None]
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
        stages: states in pipeline order.
        artifacts: stage name -> its committed artifact; stages that are not done are absent.
    """

    name: str
    recipe: str
    seed: int
    config: Mapping[str, Any]
    storage: str
    stages: Sequence[StageRow]
    artifacts: Mapping[str, Artifact]

    def table(self, stage: str, member: str) -> Table | None:
        """The table, or None while it does not exist."""
        artifact = self.artifacts.get(stage)
        return artifact.table(member) if artifact and artifact.has(member) else None

    def json(self, stage: str, member: str) -> Any:
        """The JSON document, or None while it does not exist."""
        artifact = self.artifacts.get(stage)
        return artifact.json(member) if artifact and artifact.has(member) else None

    def classes(self) -> list[ClassView]:
        """Known classes, then discovered ones; only known ones before ``discover``."""
        discovered = self.json("discover", "discovered_classes")
        rows = discovered if discovered is not None else self.json("ingest", "classes") or []
        return [
            ClassView(
                int(row["class_index"]),
                printable(row.get("name") or f"class {row['class_index']}"),
                bool(row.get("known", discovered is None)),
            )
            for row in rows
        ]

    def category_names(self) -> dict[int, str]:
        """The data set's own names by category_id: all of them where ground truth exists."""
        rows = [*(self.json("ingest", "classes") or []), *(self.truth_categories() or [])]
        return {int(row["category_id"]): printable(row["name"]) for row in rows}

    def truth_categories(self) -> list[dict[str, Any]] | None:
        """Categories of the ground truth with ``known`` and ``class_index``, if there is any."""
        return self.json("ground_truth", "categories")


def printable(text: object) -> str:
    """User text that XML can hold: control characters and lone surrogates become U+FFFD."""
    safe = str(text).encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in safe)
