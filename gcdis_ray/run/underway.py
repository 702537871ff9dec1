"""How far an unfinished stage is, as its storage tells: whoever reads it needs no driver, no Ray.

An attempt notes what it begins (``begun/<unit>.json``: how many units, and what they are called),
then records each finished unit (``done/``). A training notes its steps; how far it is says the
newest whole checkpoint below ``train/``.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from gcdis_ray.store.storage import Storage

FIT = "fit"  # the group of units that are trainings
# A trial is a work of its own below the artifact's.
_RECORD = re.compile(r"(trials/[^/]+/)?attempt-[^/]+/(begun|done)/(.+)\.json")
_CHECKPOINT = re.compile(r"(trials/[^/]+/)?train/[^/]+/step-(\d{10})/complete")


@dataclass(frozen=True)
class Underway:
    """The part of a stage that is begun and not finished."""

    part: str  # members that it gives, joined by +; of a trial after its name
    done: int
    total: int
    unit: str  # shards, steps, ...
    idle_s: float  # since anything of the stage was written

    def as_json(self) -> dict[str, Any]:
        return dict(vars(self))


def underway(storage: Storage, base: str) -> Underway | None:
    """How far the stage is whose artifact will lie at ``base``; None if it has begun no part, or
    is between two of them.

    Args:
        base: ``<stage>/<key>``.
    """
    begun: dict[tuple[str, str], str] = {}  # (work, part) -> path of its record
    done: dict[tuple[str, str], set[str]] = defaultdict(set)
    steps: dict[str, int] = defaultdict(int)
    for path in storage.list(base):
        below = path.removeprefix(f"{base}/")
        if found := _RECORD.fullmatch(below):
            work, kind, unit = found[1] or "", found[2], found[3]
            if kind == "begun":
                begun[work, unit] = path
            else:  # a training is one unit, a shard one of many
                part = unit if unit.startswith(f"{FIT}/") else unit.rpartition("/")[0]
                done[work, part].add(unit)
        elif found := _CHECKPOINT.fullmatch(below):
            work = found[1] or ""
            steps[work] = max(steps[work], int(found[2]))
    idle_s = max(0.0, time.time() - storage.newest(base))
    for (work, part), path in sorted(begun.items(), reverse=True):
        finished = done[work, part]
        noted = json.loads(storage.read(path))
        training = part.startswith(f"{FIT}/")
        if training and finished:
            continue
        amount = steps[work] if training else len(finished)
        if amount < noted["total"] or training:
            # What follows a dot in the name of a group says by what its units are made.
            members = part.removeprefix(f"{FIT}/").partition(".")[0]
            name = f"{work.removeprefix('trials/')}{members}"
            return Underway(name, amount, noted["total"], noted["unit"], idle_s)
    return None
