"""Placing: crops are put in clusters by their frozen embeddings, before anything is trained.

Which space of the embeddings, which clusterer, and how far labeled crops are to be kept from
unlabeled ones, differs from backbone to backbone and from data set to data set. So it is chosen by
what is known: labels of some classes and some labels of the others are withheld, in several ways,
and every choice is judged by how well it sorts the crops concerned
(:class:`gcdis_ray.methods.hold_out.HoldOut`). The best partitions by all labels are joined to one,
which is steadier than the first alone.

Shape letters: N crops, G points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.errors import ArtifactError, ConfigError, DataError
from gcdis_ray.methods.hold_out import Score
from gcdis_ray.methods.placing_trials import Candidate, TryPlacing, partitions
from gcdis_ray.store.schemas import PLACED

if TYPE_CHECKING:
    from gcdis_ray.clustering.spaces import Space
    from gcdis_ray.methods.placing_points import PlacingPoints
    from gcdis_ray.methods.problem import Problem
    from gcdis_ray.runtime.base import Work
    from gcdis_ray.store.artifacts import Table

Ints = NDArray[np.int64]

_WHERE = "embeddings"
BASELINES = (Candidate("raw", "k-means"), Candidate("raw", "semi-supervised k-means"))


def place(problem: Problem, work: Work) -> Ints:
    """Cluster (N,) of every crop, known classes that training is told of first.

    Writes tables ``placed`` and ``placing_trials``, tensors ``placing_points`` and JSON
    ``placing``: what was chosen, and how every choice did on withheld labels.

    Raises:
        ConfigError: fewer than two known classes have labeled crops: none can be withheld whole.
        DataError: no crop is labeled, or there are more classes than crops.
    """
    config, crops = problem.placing, _Crops.of(problem)
    point_N, points = crops.points(config.points_tried)
    work.write_tensors("placing_points", points.tensors())
    task = TryPlacing(
        work.tensor_file("placing_points"),
        problem.num_told,
        problem.num_outputs,
        config.stretches,
        problem.seed,
    )
    args = [
        {"space": space, "split": split} for split in range(config.splits) for space in points.means
    ]
    told = work.map_shards(task, [], gives=("placing_trials",), args=args, unit="placings tried")
    ranked = rank(told["placing_trials"].read())
    best = [entry.candidate for entry in ranked[: config.best]]
    if crops.are_more_than(config.points_tried) or (point_N < 0).any():
        point_N, points = crops.points(config.points, [candidate.space for candidate in best])
    placed_N = crops.of_points(_joined(points, best, problem, work), point_N)
    rows = [np.arange(len(placed_N)), placed_N.astype(np.int32)]
    work.write_table("placed", pa.table(rows, schema=PLACED))
    work.write_json("placing", _document(ranked, best, len(points.labels_G)))
    return placed_N


def place_by(problem: Problem, candidates: Sequence[Candidate]) -> dict[Candidate, Ints]:
    """Cluster (N,) of every crop by each of these alone. Raises as :func:`place`."""
    crops = _Crops.of(problem)
    point_N, points = crops.points(problem.placing.points, [c.space for c in candidates])
    classes = problem.num_told, problem.num_outputs
    found = partitions(points, points.labels_G, *classes, candidates, problem.seed)
    return {candidate: crops.of_points(found[candidate], point_N) for candidate in candidates}


@dataclass(frozen=True)
class _Crops:
    """The crops of a problem in the spaces of their embeddings.

    Args:
        labels_N: class that training is told of each labeled crop, -1 of the others.
        spaces: by name.
        small: in which crops are joined where there are too many.
    """

    embeddings: Table
    labels_N: Ints
    spaces: Mapping[str, Space]
    small: Space
    seed: int

    @classmethod
    def of(cls, problem: Problem) -> _Crops:
        from gcdis_ray.data.crops.crop_vectors import read_vectors
        from gcdis_ray.methods.placing_points import FITTED, draw_rows, smallest, spaces_of

        if problem.space is None:
            raise ArtifactError("crops are placed by embeddings, and there are none", where=_WHERE)
        embeddings, dims = problem.space.table("embeddings"), problem.placing.dims
        labels_N = embeddings.read(["class_index"])["class_index"].to_numpy().astype(np.int64)
        labels_N = problem.told_array(labels_N)
        _check(labels_N, problem)
        fitted = draw_rows(np.arange(len(labels_N)), FITTED, problem.seed)
        spaces = spaces_of(read_vectors(embeddings, fitted), problem.num_outputs, dims)
        return cls(embeddings, labels_N, spaces, spaces[smallest(dims)], problem.seed)

    def are_more_than(self, most: int) -> bool:
        """Whether labeled or unlabeled ones are."""
        told_N = self.labels_N >= 0
        return bool(max(np.count_nonzero(told_N), np.count_nonzero(~told_N)) > most)

    def points(self, most: int, spaces: Sequence[str] | None = None) -> tuple[Ints, PlacingPoints]:
        """Point (N,) of each crop, and the points in these spaces, or in all."""
        from gcdis_ray.methods.placing_points import group_crops, read_points

        point_N, labels_G = group_crops(self.embeddings, self.labels_N, self.small, most, self.seed)
        names = self.spaces if spaces is None else dict.fromkeys(spaces)
        wanted = {name: self.spaces[name] for name in names}
        return point_N, read_points(self.embeddings, point_N, labels_G, wanted)

    def of_points(self, cluster_G: Ints, point_N: Ints) -> Ints:
        """Cluster (N,) of each crop: of its label, else of its point."""
        return np.where(self.labels_N >= 0, self.labels_N, cluster_G[point_N])


def _check(labels_N: Ints, problem: Problem) -> None:
    num_classes, told = problem.num_outputs, np.unique(labels_N[labels_N >= 0])
    if not len(told):
        raise DataError(
            "no crop has a label of a known class: there is nothing to place others by",
            where="crops",
            fix="look at what stages propose and crop left out, or choose stages.discover.method: "
            "kmeans",
        )
    if len(told) < 2:
        raise ConfigError(
            "one known class has labeled crops: none can be withheld to choose a placing by",
            where="stages.discover.method",
            fix="label a second class, or choose kmeans",
        )
    if num_classes > len(labels_N):
        raise DataError(
            f"{num_classes} classes of {len(labels_N)} crops",
            where="class_count",
            fix="set stages.count.num_novel to fewer, or let more objects become crops",
        )


@dataclass(frozen=True)
class Ranked:
    """A candidate and how it did on withheld labels, over the ways to withhold them.

    Args:
        known, novel: mean accuracy in [0, 1] on crops of visible and of hidden classes; None where
            no label of that kind could be withheld.
        score: mean of the two, by which candidates are ranked.
        deviation: of the score over the ways, 0 for a single one.
    """

    candidate: Candidate
    known: float | None
    novel: float | None
    score: float
    deviation: float


def rank(trials: pa.Table) -> list[Ranked]:
    """Candidates of table ``placing_trials``, the best first; among equals, those tried first."""
    scores: defaultdict[Candidate, list[Score]] = defaultdict(list)
    for row in sorted(trials.to_pylist(), key=lambda row: row["split"]):
        candidate = Candidate(row["space"], row["clusterer"], row["stretch"])
        scores[candidate].append(Score(row["known"], row["novel"]))
    ranked = []
    for candidate, told in scores.items():
        means = [score.mean for score in told if score.mean is not None]
        ranked.append(
            Ranked(
                candidate,
                _mean([score.known for score in told]),
                _mean([score.novel for score in told]),
                float(np.mean(means)),
                float(np.std(means)),
            )
        )
    return sorted(ranked, key=lambda entry: -entry.score)


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return float(np.mean(told)) if told else None


def _joined(points: PlacingPoints, best: Sequence[Candidate], problem: Problem, work: Work) -> Ints:
    """The consensus (G,) of the best candidates by all labels."""
    from gcdis_ray.clustering.partitions import consensus

    classes, found = (problem.num_told, problem.num_outputs), []
    for done, candidate in enumerate(best):
        work.progress(done, len(best), "best placings")
        made = partitions(points, points.labels_G, *classes, [candidate], problem.seed)
        found.append(made[candidate])
    work.progress(len(best), len(best), "best placings")
    return consensus(found, points.labels_G, points.weight_G, *classes)


def _document(
    ranked: Sequence[Ranked], best: Sequence[Candidate], num_points: int
) -> dict[str, Any]:
    """JSON ``placing``."""
    entries = [
        {
            **entry.candidate._asdict(),
            "known": entry.known,
            "novel": entry.novel,
            "score": entry.score,
            "deviation": entry.deviation,
        }
        for entry in ranked
    ]
    return {
        "tried": entries,
        "num_joined": len(best),
        "num_points": num_points,
        "baselines": [e for r, e in zip(ranked, entries, strict=True) if r.candidate in BASELINES],
    }
