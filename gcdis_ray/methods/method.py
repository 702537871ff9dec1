"""What the pipeline asks of a discovery method, whichever paper it is of.

A method is a room of :mod:`gcdis_ray.methods` with a module ``method.py``, or the module that an
entry point of group ``gcdis_ray.methods`` names; both hold what :class:`Method` says. It learns
from a :class:`~gcdis_ray.methods.problem.Problem` and leaves members in the artifact of stage
discover; a :class:`StoredMethod` names them. Opened where it runs, it is a :class:`Trained` and
says of crops, seen or new, which class they are in.

Shape letters: N crops, K outputs, C clusters, D embedding, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.problem import Problem
from gcdis_ray.plugins import Plugins
from gcdis_ray.store.artifacts import Size, TensorFile
from gcdis_ray.store.members import Member, Members

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.runtime.base import Work

_METHODS = Plugins(
    "method", "gcdis_ray.methods", lambda module: module.ispkg, group="gcdis_ray.methods"
)


_PARTS = (
    "VERSION", "Config", "GIVES", "USES_EMBEDDINGS", "SNAPSHOTS", "MEASURES", "check", "forecast",
    "fit", "load",
)  # fmt: skip


class Inferred(NamedTuple):
    """What a method says of crops."""

    probabilities_NC: NDArray[np.float32]  # of its outputs or clusters; rows sum to 1
    embeddings_ND: NDArray[np.float32]  # unit rows


class Trained(Protocol):
    """A trained method, opened on a device."""

    @property
    def num_outputs(self) -> int: ...

    @property
    def width(self) -> int:
        """D."""
        ...

    def infer(self, crops: pa.Table) -> Inferred:
        """Args:
        crops: columns ``jpeg``, ``mask_png``; may be empty. With a column ``embedding``, of a
            method that ``USES_EMBEDDINGS``, crops need not be embedded again.
        """
        ...

    def prototypes_KF(self) -> NDArray[np.float32]:
        """What stands for each output, unit rows. Methods with snapshots only."""
        ...


@dataclass(frozen=True)
class Fitted:
    """The members that a method has left in its artifact.

    Args:
        spec: what they mean, as plain JSON.
        weights: name of the tensors that snapshots stand in for.
        others: names of further tensors that it takes to open the method.
        snapshots: finished steps of earlier weights, in tensors ``snapshot_<step>``, oldest first,
            the last one included; none if it knows no earlier ones.
    """

    spec: Mapping[str, Any]
    weights: str
    others: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()


class Method(Protocol):
    """What the module of a method holds. It is imported to read a config: no torch at import.

    Args:
        VERSION: raised when results change.
        GIVES: the members that :meth:`fit` leaves, all optional.
        USES_EMBEDDINGS: it works on the frozen embeddings.
        SNAPSHOTS: it keeps earlier weights, by which labels are judged and outputs pruned.
        MEASURES: it can measure a hold-out on the way.
    """

    @property
    def VERSION(self) -> int: ...
    @property
    def Config(self) -> type[StageConfig]: ...
    @property
    def GIVES(self) -> tuple[Member, ...]: ...
    @property
    def USES_EMBEDDINGS(self) -> bool: ...
    @property
    def SNAPSHOTS(self) -> bool: ...
    @property
    def MEASURES(self) -> bool: ...

    def check(self, config: Any) -> None:
        """Look at the files that it needs. Raises ConfigError if one cannot be used."""
        ...

    def forecast(self, config: Any, inputs: Mapping[str, Size]) -> Size:
        """Of the members that :meth:`fit` leaves, and of what it reads."""
        ...

    def fit(self, problem: Problem, config: Any, work: Work) -> Fitted: ...

    def load(
        self,
        spec: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        others: Mapping[str, Mapping[str, Tensor]],
        device: str,
    ) -> Trained: ...


def method_names() -> list[str]:
    """Ours, and those of other installed packages."""
    return _METHODS.names()


def load_method(name: str) -> Method:
    """The module of a method.

    Raises:
        ConfigError: there is none, it cannot be loaded, or it does not hold what :class:`Method`
            says.
    """
    where = "stages.discover.method"
    method = _METHODS.load(name, _room, where=where)
    absent = [part for part in _PARTS if not hasattr(method, part)]
    if absent:
        raise ConfigError(f"method {name} has no {', '.join(absent)}", where=where)
    return method


def _room(package: Any) -> Method:
    import importlib

    return importlib.import_module(f"{package.__name__}.method")  # pyright: ignore[reportReturnType]


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

    @property
    def uses_embeddings(self) -> bool:
        return load_method(self.name).USES_EMBEDDINGS

    def open(self, device: str) -> Trained:
        """The method as training left it."""
        return self._load(self.weights, self._others(), device)

    def open_snapshots(self, device: str) -> list[Trained]:
        """The method as it was at each snapshot, oldest first."""
        others = self._others()
        return [self._load(weights, others, device) for weights in self.snapshots.values()]

    def _others(self) -> dict[str, dict[str, Tensor]]:
        return {name: file.load() for name, file in self.others.items()}

    def _load(
        self, weights: TensorFile, others: Mapping[str, Mapping[str, Tensor]], device: str
    ) -> Trained:
        from gcdis_ray.methods.groups import Grouped

        trained = load_method(self.name).load(self.spec, weights.load(), others, device)
        return trained if self.groups is None else Grouped(trained, self.groups)


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


def with_embeddings(crops: pa.Table, embeddings: pa.Table | None) -> pa.Table:
    """Crops with the column ``embedding`` of the same shard of ``embeddings``, if there is one."""
    if embeddings is None:
        return crops
    return crops.append_column("embedding", embeddings["embedding"])
