"""From more outputs than there are classes to the classes that are used: dropping and merging.

Over-provisioning costs little while training; afterwards, outputs for which nothing speaks are
dropped, and outputs that share one class are joined. Known outputs are never touched.

Shape letters: K outputs, F features, E entries of the agreement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
_EQUAL = 1e-12  # of stabilities: rounding


class Agreement(NamedTuple):
    """Where snapshots put the same crops. An entry counts the crops that an earlier snapshot put
    into output ``earlier`` and the last one into ``last``; entries of one pair add up. Entries of
    the last snapshot itself (``step`` is the largest) have ``earlier == last``."""

    step_E: Ints
    earlier_E: Ints
    last_E: Ints
    crops_E: Ints
    confidence_E: NDArray[np.float64]  # the last snapshot's largest probability, summed over crops


class Pruned(NamedTuple):
    """Args:
    groups: original outputs of each cluster, rising: known ones first, in order, then novel ones by
        their first output. Dropped outputs are in none.
    report: plain JSON: ``num_outputs``, ``num_clusters``, ``outputs``, ``merges``.
    """

    groups: list[list[int]]
    report: dict[str, Any]


def prune(
    agreement: Agreement,
    prototypes_KF: NDArray[np.floating],
    num_known: int,
    *,
    min_members: int,
    min_confidence: float,
    merge_cosine: float,
) -> Pruned:
    """Drop novel outputs without support, then join those that are one class.

    A novel output is dropped if the last snapshot gives it fewer than ``min_members`` crops, or if
    its largest probability averages below ``min_confidence`` over them. Clusters of the others are
    then joined in falling order of their prototypes' cosine, if all cosines between the two are
    above ``merge_cosine`` and their joint :func:`stability` does not fall.

    Args:
        prototypes_KF: unit rows; known outputs first.
    """
    num_outputs = len(prototypes_KF)
    own = agreement.step_E == agreement.step_E.max(initial=0)
    members = _sums(agreement.last_E[own], agreement.crops_E[own], num_outputs)
    sums = _sums(agreement.last_E[own], agreement.confidence_E[own], num_outputs)
    confidence = sums / np.maximum(members, 1)
    few, unsure = members < min_members, confidence < min_confidence
    novel = np.arange(num_outputs) >= num_known
    kept = np.flatnonzero(novel & ~few & ~unsure)
    clusters, merges = _merge(agreement, prototypes_KF, kept, merge_cosine)
    groups = [[output] for output in range(num_known)] + sorted(clusters)
    cluster_of = {output: n for n, group in enumerate(groups) for output in group}
    outputs = []
    for output in range(num_outputs):
        reasons = [("members", few[output]), ("confidence", unsure[output] and members[output] > 0)]
        dropped = output not in cluster_of
        outputs.append(
            dict(
                output=output,
                known=output < num_known,
                members=int(members[output]),
                confidence=float(confidence[output]) if members[output] else None,
                cluster=cluster_of.get(output),
                dropped_for=[name for name, holds in reasons if holds] if dropped else [],
            )
        )
    report = dict(num_outputs=num_outputs, num_clusters=len(groups), outputs=outputs, merges=merges)
    return Pruned(groups, report)


def _sums(output_E: Ints, values_E: NDArray[Any], num_outputs: int) -> NDArray[np.float64]:
    return np.bincount(output_E, values_E, num_outputs).astype(np.float64)


def _merge(
    agreement: Agreement, prototypes_KF: NDArray[np.floating], kept: Ints, merge_cosine: float
) -> tuple[list[list[int]], list[dict[str, Any]]]:
    """Clusters of the kept outputs, and every pair that was looked at, in that order."""
    cosines = np.minimum(prototypes_KF[kept] @ prototypes_KF[kept].T, 1.0)  # against rounding
    left, right = np.nonzero(np.triu(cosines > merge_cosine, 1))
    order = np.lexsort((right, left, -cosines[left, right]))
    cluster = {n: [n] for n in range(len(kept))}  # positions in kept; members share one list
    merges = []
    for a, b in zip(left[order].tolist(), right[order].tolist(), strict=True):
        first, second = cluster[a], cluster[b]
        if first is second or cosines[np.ix_(first, second)].min() <= merge_cosine:
            continue
        parts = [kept[first].tolist(), kept[second].tolist()]
        before, after = stability(agreement, parts), stability(agreement, [parts[0] + parts[1]])
        joined = after >= before - _EQUAL
        merges.append(
            dict(
                outputs=[sorted(part) for part in parts],
                cosine=float(cosines[a, b]),
                stability_apart=before,
                stability_joined=after,
                merged=joined,
            )
        )
        if joined:
            both = first + second
            cluster |= dict.fromkeys(both, both)
    found = {id(group): sorted(kept[group].tolist()) for group in cluster.values()}
    return list(found.values()), merges


def stability(agreement: Agreement, clusters: Sequence[Collection[int]]) -> float:
    """How stable clusters are together: the mean over earlier snapshots t of Cohen's kappa

        kappa_t = (p - e) / (1 - e),  p = sum_g n_gg / N,  e = sum_g n_g. n_.g / N^2

    where n_gh counts the crops of all N that snapshot t puts into g and the last one into h, and g
    and h go over ``clusters`` and, as one more, all other outputs. (Cohen, A coefficient of
    agreement for nominal scales, 1960.)

    The plain share p cannot fall when two clusters are joined; the chance agreement e grows as
    well, so that kappa rises for clusters that exchange crops from snapshot to snapshot, and falls
    for two that do not.

    Returns:
        at most 1; 1 if all crops are in one cluster at both times, or no snapshot is earlier.
    """
    size = 1 + max(agreement.earlier_E.max(initial=0), agreement.last_E.max(initial=0))
    size = max(size, 1 + max((max(cluster, default=0) for cluster in clusters), default=0))
    name = np.full(size, len(clusters))
    for number, cluster in enumerate(clusters):
        name[list(cluster)] = number
    kappas = []
    for step in np.unique(agreement.step_E)[:-1]:
        here = agreement.step_E == step
        counts = np.zeros((len(clusters) + 1,) * 2)
        pairs = name[agreement.earlier_E[here]], name[agreement.last_E[here]]
        np.add.at(counts, pairs, agreement.crops_E[here])
        total = counts.sum()
        agreed = np.trace(counts) / total
        chance = (counts.sum(axis=0) * counts.sum(axis=1)).sum() / total**2
        kappas.append(1.0 if chance == 1 else (agreed - chance) / (1 - chance))
    return float(np.mean(kappas)) if kappas else 1.0
