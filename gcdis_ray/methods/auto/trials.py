"""How candidates do on labels that they were not told.

Shape letters: N crops, M of them whose labels are withheld.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.methods.assigning import AssignCrops, tables_to_assign
from gcdis_ray.methods.hold_out import HoldOut, Score
from gcdis_ray.methods.method import load_method
from gcdis_ray.methods.placing import BASELINES, place, place_by
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.runtime.base import Work

Ints = NDArray[np.int64]


class Trials:
    """Candidates of one problem with labels withheld, in the order in which they are tried.

    Args:
        problem: with a hold-out.
        labels_N: known class of every crop, withheld or not; -1 for none.
    """

    def __init__(self, problem: Problem, labels_N: Ints, work: Work) -> None:
        assert problem.hold_out is not None, "labels are withheld"
        self._problem, self._work = problem, work
        self._hold_out: HoldOut = problem.hold_out
        self._rows_M = self._hold_out.judged(labels_N)
        self._class_M = labels_N[self._rows_M]
        self._clusters: dict[str, Ints] = {}  # (M,) by candidate

    def place(self) -> None:
        """What candidates start from; and, to be shown beside them, what plain clustering of the
        embeddings gives."""
        placed_N = place(self._problem, self._work.trial("placing"))
        self._problem = replace(self._problem, placed_N=placed_N)
        for candidate, cluster_N in place_by(self._problem, BASELINES).items():
            self._clusters[candidate.clusterer] = cluster_N[self._rows_M]

    def train(self, name: str, options: Any) -> None:
        """A candidate, from the placed clusters."""
        problem, trial = self._problem, self._work.trial(name)
        fitted = load_method(name).fit(problem, options, trial)

        def tensor_file(member: str):
            return (trial if trial.has(member) else self._work).tensor_file(member)

        stored = StoredMethod.of(name, fitted, tensor_file)
        embeddings = problem.space.table("embeddings") if problem.space else None
        tables = tables_to_assign(stored, problem.crops, embeddings)
        told = trial.map_shards(AssignCrops(stored, top_k=1), tables, gives=["assignments"])
        cluster_N = told["assignments"].read(["cluster_id"])["cluster_id"].to_numpy()
        self._clusters[name] = cluster_N.astype(np.int64)[self._rows_M]

    def score(self, name: str) -> Score:
        return self._hold_out.score(self._clusters[name], self._class_M)

    def chosen(self) -> str:
        """The candidate with the best score, ``linkage`` unless another one is better by more than
        the standard error of the difference. Baselines are shown and not chosen: placing has tried
        them."""
        shown = {candidate.clusterer for candidate in BASELINES}
        best, most = "linkage", 0.0
        for name in self._clusters:
            if name in shown or name == "linkage":
                continue
            gain, error = self._gain(name)
            if gain > error and gain > most:
                best, most = name, gain
        return best

    def _gain(self, name: str) -> tuple[float, float]:
        """By how much a candidate's score is above that of the placed clusters, and the standard
        error of that, over crops."""
        right, base = (
            self._hold_out.right(self._clusters[which], self._class_M).astype(np.float64)
            for which in (name, "linkage")
        )
        hidden_M = np.isin(self._class_M, self._hold_out.hidden)
        parts = [(right - base)[mine] for mine in (hidden_M, ~hidden_M) if mine.any()]
        gain = float(np.mean([part.mean() for part in parts]))
        variance = sum(part.var() / len(part) for part in parts) / len(parts) ** 2
        return gain, float(np.sqrt(variance))

    def document(self, chosen: str) -> dict[str, Any]:
        """JSON ``candidates``."""
        rows = []
        for name in self._clusters:
            score = self.score(name)
            told = {"known": score.known, "novel": score.novel, "score": score.mean}
            rows.append({"method": name, **told, "chosen": name == chosen})
        return {"candidates": rows, "num_crops": len(self._rows_M)}
