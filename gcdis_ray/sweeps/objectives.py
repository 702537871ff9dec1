"""What a sweep can look for: the objectives that the stages of a recipe offer.

The fair ones know labeled data only. The oracle ones are those of stages that may open sealed
members, so they may know the ground truth of unlabeled or validation data; a sweep refuses them
unless it says ``oracle: true``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from gcdis_ray.errors import DataError
from gcdis_ray.run.graph import Graph, Wired, load_recipe
from gcdis_ray.stages.objective import Direction, Objective, Reading
from gcdis_ray.stages.stage import offered
from gcdis_ray.store.artifacts import Artifact


@dataclass(frozen=True)
class Goal:
    """An objective at its place in a recipe.

    Args:
        name: of the objective; ``<node>.<objective>`` where several nodes offer one of that name.
        wired: the node that offers it.
        until: the last node that a trial has to run.
    """

    name: str
    objective: Objective
    wired: Wired
    until: str

    @property
    def node(self) -> str:
        return self.wired.node.name

    @property
    def section(self) -> str:
        """Path of the node's part of the config."""
        return f"stages.{self.wired.config_name}"

    @property
    def oracle(self) -> bool:
        """It may look at ground truth of unlabeled or validation data."""
        gives = self.wired.node.stage.GIVES
        return self.wired.opens_sealed or any(member.sealed for member in gives)

    @property
    def direction(self) -> Direction:
        return self.objective.direction

    @property
    def kind(self) -> str:
        """``train``: trials run stages; else what they do instead."""
        return self.objective.probe.kind if self.objective.probe else "train"

    def read(self, artifact: Artifact) -> Reading:
        """What the node's artifact says.

        Raises:
            DataError: nothing, for want of ground truth, labels or the member that would say it.
        """
        where, member = f"{artifact.manifest.stage}/{artifact.key}", self.objective.member
        if self.objective.read is None:
            raise DataError(f"{self.name} is not read from an artifact", where="objective")
        if member is not None and not artifact.has(member):
            raise DataError(
                f"{self.name} is read from {member!r}, which this artifact does not have",
                where=where,
                fix="choose another objective, or a config that leaves it",
            )
        reading = self.objective.read(artifact)
        if reading.value is None:
            raise DataError(
                f"{self.name} cannot be computed",
                where=where,
                fix="look whether the data set has the labels it needs",
            )
        return reading


def goals(recipe: str) -> dict[str, Goal]:
    """What a sweep over a recipe can look for, by name, in the order of its nodes."""
    return goals_of(load_recipe(recipe))


def goals_of(graph: Graph) -> dict[str, Goal]:
    """As :func:`goals`. A probe of members that no node gives is left out."""
    found = [
        (wired, objective)
        for wired in graph.values()
        if (offer := offered(wired.node.stage, "objectives"))
        for objective in offer()
        if objective.probe is None or set(objective.probe.takes) <= set(wired.takes)
    ]
    offers = Counter(objective.name for _, objective in found)
    order = list(graph)
    named: dict[str, Goal] = {}
    for wired, objective in found:
        node, name = wired.node.name, objective.name
        name = name if offers[name] == 1 else f"{node}.{name}"
        until = node
        if objective.probe:
            until = max((wired.takes[m] for m in objective.probe.takes), key=order.index)
        named[name] = Goal(name, objective, wired, until)
    return named
