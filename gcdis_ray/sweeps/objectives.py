"""What a sweep can look for. Each objective reads one artifact of a finished trial.

The fair ones know labeled data only. The oracle ones know the ground truth of unlabeled or
validation data, which ``evaluate`` opens; a sweep refuses them unless it says ``oracle: true``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gcdis_ray.errors import DataError
from gcdis_ray.store.artifacts import Artifact

Direction = Literal["max", "min"]

# Fields of stage count that a clustering depends on; besides them on the embeddings and the seed.
CLUSTERED_BY = (
    "num_novel", "dims", "max_labeled_per_class", "max_unlabeled", "n_init", "backend",
)  # fmt: skip


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
class Objective:
    """A number to be made large or small.

    Args:
        stage: whose artifact it reads; a trial runs until there.
        meaning: for people.
        oracle: it looks at ground truth of unlabeled or validation data.
        clusters: measured on a k-means of the embeddings with ``known + stages.count.num_novel``
            clusters, not read from an artifact; such a trial trains nothing.
        live: name of the value, in the progress of the training, that tells it on the way; or
            ``loss``.
        read: the artifact of ``stage`` -> reading.
    """

    name: str
    direction: Direction
    stage: str
    meaning: str
    oracle: bool = False
    clusters: bool = False
    live: str | None = None
    read: Callable[[Artifact], Reading] | None = None


def _training_loss(discover: Artifact) -> Reading:
    rows = [row for row in discover.table("history").read().to_pylist() if row["name"] == "total"]
    curve = tuple((int(row["step"]), float(row["value"])) for row in rows)
    return Reading(curve[-1][1] if curve else None, curve)


def _holdout_accuracy(discover: Artifact) -> Reading:
    found = discover.json("holdout")
    curve = tuple((int(point["step"]), float(point["accuracy"])) for point in found["curve"])
    hidden = {"hidden_classes": found["hidden_classes"]}
    return Reading(found["accuracy"], curve, hidden)


def _evaluated(section: str, name: str, part: str) -> Callable[[Artifact], Reading]:
    def read(evaluate: Artifact) -> Reading:
        metrics = evaluate.json("metrics")
        shown = {
            "discovery.accuracy": metrics["discovery"]["accuracy"],
            "detection.mask_ap": metrics["detection"]["mask_ap"],
        }
        return Reading((metrics[section].get(name) or {}).get(part), metrics=shown)

    return read


def _clustered(name: str, meaning: str) -> Objective:
    return Objective(name, "max", "count", meaning, clusters=True)


def _oracles() -> tuple[Objective, ...]:
    kinds = (("accuracy", "discovery", "accuracy"), ("mask_ap", "detection", "mask_ap"))
    return tuple(
        Objective(
            f"{title}_{part}",
            "max",
            "evaluate",
            f"{section}.{name}.{part} of evaluate",
            oracle=True,
            read=_evaluated(section, name, part),
        )
        for title, section, name in kinds
        for part in ("all", "known", "novel")
    )


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        _clustered("labeled_accuracy", "share of labeled crops in the cluster of their class"),
        _clustered("balanced_accuracy", "labeled_accuracy, averaged over known classes"),
        _clustered("silhouette", "how far crops are from the next cluster; knows no label at all"),
        Objective(
            "holdout_accuracy",
            "max",
            "discover",
            "accuracy on known classes whose labels discovery did not see",
            live="holdout_accuracy",
            read=_holdout_accuracy,
        ),
        Objective(
            "training_loss",
            "min",
            "discover",
            "total loss at the end of discovery; comparable only while the space leaves the loss "
            "itself alone (its weights and temperatures)",
            live="loss",
            read=_training_loss,
        ),
        *_oracles(),
    )
}


def read(objective: Objective, artifact: Artifact) -> Reading:
    """Raises DataError: the objective has no value there, for want of ground truth or labels."""
    if objective.read is None:
        raise DataError(f"{objective.name} is not read from an artifact", where="objective")
    reading = objective.read(artifact)
    if reading.value is None:
        raise DataError(
            f"{objective.name} cannot be computed",
            where=f"{artifact.manifest.stage}/{artifact.key}",
            fix="look whether the data set has the labels it needs",
        )
    return reading
