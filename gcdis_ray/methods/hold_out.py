"""Pseudo-novel hold-out: labels that a run is not told, so that what it discovers can be scored
without a label of any novel class.

All labels of some known classes are withheld, and a share of the labels of the others. The crops
concerned are unlabeled ones to whatever learns. The score is the mean of two accuracies on them:
of classes that are hidden whole, when clusters of free outputs are matched to them one to one, and
of the others, whose outputs stand for them (protocol ``known_identity`` of
:mod:`gcdis_ray.metrics.discovery`, with hidden classes in the place of novel ones). Either alone
misleads: what hides in novel clusters whatever is not labeled is best on hidden classes. All truth
it uses are labels of labeled images.

Shape letters: N crops, M of them that are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.metrics.discovery import clustering_accuracy, named_classes

Ints = NDArray[np.int64]
MAX_MEASURED = 2000  # crops looked at per measurement while training


class Score(NamedTuple):
    """Accuracy in [0, 1] on crops whose labels were withheld; None where there are none.

    Args:
        known: of classes of which other labels were told.
        novel: of classes that were hidden whole.
    """

    known: float | None
    novel: float | None

    @property
    def mean(self) -> float | None:
        """Of the two, or the one there is: what settings are ranked by."""
        told = [value for value in self if value is not None]
        return sum(told) / len(told) if told else None


@dataclass(frozen=True)
class HoldOut:
    """Which labels are withheld.

    Args:
        hidden: class indices of known classes without any label, rising.
        visible: those of the other known classes, rising: output v is trained on ``visible[v]``.
        withheld: rows of further crops, of visible classes, rising.
        seed: of :meth:`sample`.
    """

    hidden: tuple[int, ...]
    visible: tuple[int, ...]
    withheld: tuple[int, ...] = ()
    seed: int = 0

    @property
    def num_visible(self) -> int:
        return len(self.visible)

    def told(self, labels_N: Ints) -> Ints:
        """The labels to train on.

        Args:
            labels_N: known class of each crop, -1 for an unlabeled one.

        Returns:
            outputs of visible classes; -1 for unlabeled crops and those whose label is withheld.
        """
        size = 1 + max(*self.hidden, *self.visible)
        outputs = np.full(size + 1, -1, dtype=np.int64)  # the last entry is that of -1
        outputs[list(self.visible)] = np.arange(len(self.visible))
        told_N = outputs[labels_N]
        told_N[list(self.withheld)] = -1
        return told_N

    def judged(self, labels_N: Ints) -> Ints:
        """Rows of the crops whose labels are withheld, rising."""
        withheld_N = np.isin(labels_N, self.hidden)
        withheld_N[list(self.withheld)] = True
        return np.flatnonzero(withheld_N)

    def sample(self, labels_N: Ints) -> tuple[Ints, Ints]:
        """At most ``MAX_MEASURED`` of the crops whose labels are withheld, rising, and their
        classes."""
        rows = self.judged(labels_N)
        rng = np.random.default_rng([self.seed, 1])
        rows = np.sort(rng.permutation(rows)[:MAX_MEASURED])
        return rows, labels_N[rows]

    def score(self, cluster_M: Ints, class_M: Ints) -> Score:
        """How well crops were sorted whose labels are withheld.

        Args:
            cluster_M: cluster of each; those below ``num_visible`` stand for visible classes.
            class_M: known class of each.
        """
        found, _ = self._matched(cluster_M, class_M)
        return Score(found["known"], found["novel"])

    def right(self, cluster_M: Ints, class_M: Ints) -> NDArray[np.bool_]:
        """Which crops were sorted rightly, as :meth:`score` counts."""
        _, class_of = self._matched(cluster_M, class_M)
        return named_classes(cluster_M, class_of) == class_M

    def _matched(self, cluster_M: Ints, class_M: Ints):
        return clustering_accuracy(
            cluster_M.astype(np.int64),
            class_M.astype(np.int64),
            1 + max(*self.hidden, *self.visible),
            self.visible,
            dict(enumerate(self.visible)),
        )

    def score_all(self, cluster_N: Ints, labels_N: Ints) -> Score:
        """The same from the clusters and known classes of all crops."""
        rows = self.judged(labels_N)
        return self.score(cluster_N[rows], labels_N[rows])


def choose_hidden(labels_N: Ints, num_known: int, config: HoldOutConfig) -> HoldOut | None:
    """What ``config`` wants withheld, at random: classes of those that have labeled crops, then
    crops of the others. Each class that is not hidden keeps a label.

    Returns:
        None if it wants no class hidden.

    Raises:
        ConfigError: fewer than two known classes have labeled crops.
    """
    if config.share == 0:
        return None
    present = np.unique(labels_N[labels_N >= 0])
    if len(present) < 2:
        raise ConfigError(
            f"of {num_known} known classes, {len(present)} have labeled crops: none can be hidden "
            "while another stays visible",
            where="hold_out.share",
            fix="set it to 0",
        )
    wanted = min(max(round(config.share * len(present)), 1), len(present) - 1)
    rng = np.random.default_rng(config.seed)
    hidden = sorted(rng.permutation(present)[:wanted].tolist())
    visible = [index for index in range(num_known) if index not in hidden]
    withheld: list[int] = []
    for label in visible:
        rows = rng.permutation(np.flatnonzero(labels_N == label))
        withheld += rows[: min(round(config.withheld * len(rows)), len(rows) - 1)].tolist()
    return HoldOut(tuple(hidden), tuple(visible), tuple(sorted(withheld)), config.seed)
