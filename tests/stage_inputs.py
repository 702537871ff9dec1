"""What a stage may read, gathered from artifacts of a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcdis_ray.store.members import Inputs, need


def inputs_of(stage: Any, given: Any) -> Inputs:
    """Its inputs and no others.

    Args:
        given: an artifact, or several by name; the last one that has a member gives it.
    """
    artifacts = list(given.values()) if isinstance(given, Mapping) else [given]
    wanted = [need(taken) for taken in stage.TAKES]
    found = {w.member: a for w in wanted for a in artifacts if a.has(w.member)}
    return Inputs(found, (want.member for want in wanted if want.whole))
