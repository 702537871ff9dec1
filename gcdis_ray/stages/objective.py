"""What a sweep may ask of a stage: a number to be made large or small.

Most objectives read the artifact of the stage. A *probe* looks at what the stage takes instead, in
place of the stage: so it trains nothing. No objective says whether it is an oracle. It is one if
the stage may open sealed members, which the recipe's graph knows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gcdis_ray.config import Closed
from gcdis_ray.store.artifacts import Artifact
from gcdis_ray.store.members import Inputs

Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Reading:
    """What an artifact says of a trial.

    Args:
        value: the objective; None if it cannot be computed.
        curve: (training step, value) on the way, if there is one.
        metrics: further numbers, for people.
    """

    value: float | None
    curve: tuple[tuple[int, float], ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrialSection:
    """A section of the stage's config that is the same in every trial, so that the objective can
    be measured, and that the chosen config does not keep.

    Args:
        name: of the section, in the stage's config and in the sweep file.
        model: what the sweep file may say there, with defaults for trials.
        chosen: its fields in the chosen config.
    """

    name: str
    model: type[Closed]
    chosen: Mapping[str, Any]


@dataclass(frozen=True)
class Measurement:
    """What a probe does for one trial and one seed.

    Args:
        sample: names what is looked at, given the keys of the inputs; measurements of one name
            share it.
        load: makes the sample; called once per name, in the sweep's own process.
        measure: the sample -> numbers by name, the objective's among them. Pickles to wherever it
            runs.
        cost: those of large cost go first.
        metrics: further numbers, for people.
    """

    sample: Hashable
    load: Callable[[], Any]
    measure: Callable[[Any], Mapping[str, float]]
    cost: float = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Probe:
    """How to measure an objective without running the stage.

    Args:
        kind: what its trials do, a verb: "trials that only ..."
        does: the same of one trial, with its object: "a trial ..."
        takes: the members it looks at, of those that the stage takes.
        fields: of the stage's config that its numbers depend on, besides the seed.
        whole_numbers: those of them that have to be given, as whole numbers: field -> what for.
            ``{}`` stands for the field's path.
        measurement: of inputs, the stage's config and a seed.
    """

    kind: str
    does: str
    takes: tuple[str, ...]
    fields: tuple[str, ...]
    measurement: Callable[[Inputs, Any, int], Measurement]
    whole_numbers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """A number to be made large or small. It has either ``read`` or ``probe``.

    Args:
        meaning: for people.
        read: the artifact of the stage -> reading.
        member: that ``read`` looks at, if not every artifact of the stage has it.
        live: name of the value, in the progress of the stage's training, that tells it on the
            way; or ``loss``.
        section: what trials fix to measure it.
        probe: measures it instead.
    """

    name: str
    direction: Direction
    meaning: str
    read: Callable[[Artifact], Reading] | None = None
    member: str | None = None
    live: str | None = None
    section: TrialSection | None = None
    probe: Probe | None = None
