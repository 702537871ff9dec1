"""What a stage may read, gathered from artifacts of a test."""

from __future__ import annotations

from typing import Any

from gcdis_ray.store.members import Inputs, need


def inputs_of(stage: Any, *artifacts: Any) -> Inputs:
    """Its inputs, each from the last artifact that has it; no others."""
    wanted = [need(taken) for taken in stage.TAKES]
    found = {w.member: a for w in wanted for a in artifacts if a.has(w.member)}
    return Inputs(found, (want.member for want in wanted if want.whole))
