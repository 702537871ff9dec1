"""A trained method as it lies in an artifact: what names its members, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.groups import Grouped
from gcdis_ray.methods.method import Fitted, InferEach, Trained, load_method
from gcdis_ray.runtime.devices import Precision
from gcdis_ray.store.artifacts import TensorFile
from gcdis_ray.store.members import Members


@dataclass(frozen=True)
class StoredMethod:
    """A trained method as it lies in an artifact. Small to pickle: workers load what they need.

    Args:
        name: of the method.
        snapshots: by finished steps, oldest first.
        groups: outputs of each cluster, if outputs were dropped or joined after training.
    """

    name: str
    spec: Mapping[str, Any]
    weights: TensorFile
    others: Mapping[str, TensorFile] = field(default_factory=dict)
    snapshots: Mapping[int, TensorFile] = field(default_factory=dict)
    groups: Sequence[Sequence[int]] | None = None

    @classmethod
    def of(
        cls, name: str, fitted: Fitted, tensor_file: Callable[[str], TensorFile]
    ) -> StoredMethod:
        """Args: tensor_file: gives the tensors of a member."""
        return cls(
            name,
            fitted.spec,
            tensor_file(fitted.weights),
            {other: tensor_file(other) for other in fitted.others},
            {step: tensor_file(f"snapshot_{step}") for step in fitted.snapshots},
        )

    @classmethod
    def read(cls, members: Members) -> StoredMethod:
        """As document ``method`` says (:func:`method_document`)."""
        told = members.json("method")
        fitted = Fitted(
            told["spec"], told["weights"], tuple(told["others"]), tuple(told["snapshots"])
        )
        found = cls.of(told["name"], fitted, members.tensor_file)
        return found.grouped(told["groups"])

    def grouped(self, groups: Sequence[Sequence[int]] | None) -> StoredMethod:
        """The same with outputs joined to clusters."""
        return replace(self, groups=groups)

    def joined(self, clusters: Sequence[Sequence[int]]) -> StoredMethod:
        """The same with its clusters, as they are by now, joined further."""
        if self.groups is None:
            return self.grouped(clusters)
        return self.grouped([[k for c in group for k in self.groups[c]] for group in clusters])

    @property
    def uses_embeddings(self) -> bool:
        """Whether crops that come with their embedding need not be looked at."""
        return load_method(self.name).USES_EMBEDDINGS or bool(self.spec.get("uses_embeddings"))

    def open(self, device: str) -> Trained:
        """The method as training left it."""
        others = {name: file.load() for name, file in self.others.items()}
        method = load_method(self.name)
        trained = method.load(self.spec, self.weights.load(), others, device)
        return trained if self.groups is None else Grouped(trained, self.groups)

    def open_snapshots(self, device: str) -> InferEach:
        """The method as it was at each snapshot, oldest first."""
        return self.open(device).each([weights.load() for weights in self.snapshots.values()])

    @property
    def precision(self) -> Precision:
        """In which it infers on a GPU."""
        return self.spec.get("precision", "fp32")


def method_document(
    name: str, fitted: Fitted, groups: Sequence[Sequence[int]] | None
) -> dict[str, Any]:
    """The document ``method`` of an artifact: plain JSON."""
    return {
        "name": name,
        "spec": dict(fitted.spec),
        "weights": fitted.weights,
        "others": list(fitted.others),
        "snapshots": list(fitted.snapshots),
        "groups": groups,
    }


def told_precision(training: TrainingConfig) -> dict[str, str]:
    """What a method's spec says of its training's precision: nothing of fp32."""
    return {} if training.precision == "fp32" else {"precision": training.precision}


def with_embeddings(crops: pa.Table, embeddings: pa.Table | None) -> pa.Table:
    """Crops with the column ``embedding`` of the same shard of ``embeddings``, if there is one."""
    if embeddings is None:
        return crops
    return crops.append_column("embedding", embeddings["embedding"])
