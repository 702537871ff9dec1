"""Pseudo-novel hold-out: known classes that a run is not told about, so that what it discovers can
be scored without a label of any novel class.

Labels of the hidden classes are withheld from training; their crops are unlabeled ones. The score
is the accuracy on these crops when clusters of free outputs are matched to hidden classes one to
one (protocol ``known_identity`` of :mod:`gcdis_ray.metrics.discovery`, with the hidden classes in
the place of novel ones). All truth it uses are labels of labeled images.

Shape letter: N crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.metrics.discovery import clustering_accuracy

Ints = NDArray[np.int64]
MAX_MEASURED = 2000  # crops looked at per measurement while training


@dataclass(frozen=True)
class HoldOut:
    """Which known classes are hidden.

    Args:
        hidden: their class indices, rising.
        visible: those of the other known classes, rising: output v is trained on ``visible[v]``.
        seed: of :meth:`sample`.
    """

    hidden: tuple[int, ...]
    visible: tuple[int, ...]
    seed: int = 0

    @property
    def num_visible(self) -> int:
        return len(self.visible)

    def told(self, labels_N: Ints) -> Ints:
        """The labels to train on.

        Args:
            labels_N: known class of each crop, -1 for an unlabeled one.

        Returns:
            outputs of visible classes; -1 for unlabeled crops and those of hidden classes.
        """
        size = 1 + max(*self.hidden, *self.visible)
        outputs = np.full(size + 1, -1, dtype=np.int64)  # the last entry is that of -1
        outputs[list(self.visible)] = np.arange(len(self.visible))
        return outputs[labels_N]

    def sample(self, labels_N: Ints) -> tuple[Ints, Ints]:
        """At most ``MAX_MEASURED`` crops of hidden classes, rising, and their classes."""
        rows = np.flatnonzero(np.isin(labels_N, self.hidden))
        rng = np.random.default_rng([self.seed, 1])
        rows = np.sort(rng.permutation(rows)[:MAX_MEASURED])
        return rows, labels_N[rows]

    def accuracy(self, cluster_N: Ints, labels_N: Ints) -> tuple[float | None, float | None]:
        """How well crops were sorted whose class is known here, hidden or not.

        Args:
            cluster_N: cluster of each crop; those below ``num_visible`` stand for visible classes.
            labels_N: known class of each crop, -1 for an unlabeled one, which does not count.

        Returns:
            accuracy in [0, 1] on crops of hidden classes, and on those of visible ones; None where
            there are none.
        """
        labeled = labels_N >= 0
        found, _ = clustering_accuracy(
            cluster_N[labeled].astype(np.int64),
            labels_N[labeled].astype(np.int64),
            1 + max(*self.hidden, *self.visible),
            self.visible,
            dict(enumerate(self.visible)),
        )
        return found["novel"], found["known"]


def choose_hidden(labels_N: Ints, num_known: int, config: HoldOutConfig) -> HoldOut | None:
    """The share of known classes with labeled crops that ``config`` wants hidden, at random.

    Returns:
        None if it wants none.

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
    return HoldOut(tuple(hidden), tuple(visible), config.seed)
