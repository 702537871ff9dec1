"""What acts mean for the stages of a run: which of them will run again."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from gcdis_ray.curating.acts import Act, Merge, Reject, Split, canonical, moves, standing
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.store.members import declared

_WORDS = {Merge: "merged", Split: "split", Reject: "rejected"}


def stages_after(run: OpenedRun) -> list[str]:
    """The nodes that take what acts change, and those that take what these give, in order."""
    curating = [
        n for n, wired in run.graph.items() if declared(wired.node.stage.GIVES, "partition")
    ]
    touched = set(curating)
    for name, wired in run.graph.items():
        if touched & set(wired.takes.values()):
            touched.add(name)
    return [name for name in run.graph if name in touched and name not in curating]


def what_follows(run: OpenedRun, before: Sequence[Act], after: Sequence[Act]) -> str:
    """One sentence: ``renamed: nothing to train``, or which stages will run again and how.

    Args:
        before, after: two states of the log, the later one beginning with the earlier.
    """
    then, now = standing(before), standing(after)
    if canonical(moves(before)) == canonical(moves(after)):
        return "renamed: nothing to train" if then != now else "nothing changed"
    same = sum(takewhile(bool, map(operator.eq, then, now)))
    words = [word for kind, word in _WORDS.items() if any(isinstance(a, kind) for a in now[same:])]
    done = " and ".join([*words, *(["taken back"] if len(then) > same else [])])
    stages = stages_after(run)
    if not stages:
        return f"{done}: nothing to train"
    listed = " and ".join(filter(None, [", ".join(stages[:-1]), stages[-1]]))
    config = run.source if Path(run.source).suffix in (".yaml", ".yml") else "CONFIG"
    return f"{done}: {listed} will run again: gcdis run {config}"
