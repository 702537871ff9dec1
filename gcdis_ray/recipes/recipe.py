"""What a recipe is: a paper as a list of nodes, each a stage under a name of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gcdis_ray.stages.stage import Stage


@dataclass(frozen=True)
class Node:
    """A stage at its place in a recipe.

    Args:
        name: of its section in a config, of its line in plans and reports.
        fixes: what the paper fixes of its config: dotted field -> value. A config may leave it out,
            and may not contradict it.
        wires: member it takes -> name of the node that gives it, where that is not the nearest
            earlier one.
        configured_by: an earlier node whose section of the config is this node's as well.
        inherits: its section of the config is that of the node of its name in the run that is
            continued. A config may leave it out, and may not contradict it.
        own: fields of that section that are not inherited: what is about the images.
    """

    name: str
    stage: Stage
    fixes: Mapping[str, Any] = field(default_factory=dict)
    wires: Mapping[str, str] = field(default_factory=dict)
    configured_by: str | None = None
    inherits: bool = False
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Args: nodes: in the order in which they run."""

    nodes: tuple[Node, ...]
