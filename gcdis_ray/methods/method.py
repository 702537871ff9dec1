"""What the pipeline asks of a discovery method, whichever paper it is of.

A method is a room of :mod:`gcdis_ray.methods` with a module ``method.py``, or the module that an
entry point of group ``gcdis_ray.methods`` names; both hold what :class:`Method` says. It learns
from a :class:`~gcdis_ray.methods.problem.Problem` and leaves members in the artifact of stage
discover (:mod:`~gcdis_ray.methods.stored_method`). Opened where it runs, it is a :class:`Trained`
and says of crops, seen or new, which class they are in.

Shape letters: N crops, K outputs, C clusters, D embedding, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gcdis_ray.config import StageConfig
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.plugins import Plugins
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Member

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.runtime.base import Work

_METHODS = Plugins(
    "method", "gcdis_ray.methods", lambda module: module.ispkg, group="gcdis_ray.methods"
)


_PARTS = (
    "VERSION", "Config", "GIVES", "USES_EMBEDDINGS", "SNAPSHOTS", "MEASURES", "CHOOSES", "check",
    "forecast",
    "fit", "load", "sees_through", "starts_placed",
)  # fmt: skip


class SeenThrough(NamedTuple):
    """Of trained methods with equal ones, one can see crops through the trunk of the other
    (:func:`gcdis_ray.methods.trunk.prepare_trunk`)."""

    encoder: EncoderConfig
    augment: CropAugmentConfig
    cache_px: int | None


class Inferred(NamedTuple):
    """What a method says of crops."""

    probabilities_NC: NDArray[np.float32]  # of its outputs or clusters; rows sum to 1
    embeddings_ND: NDArray[np.float32]  # unit rows


InferEach = Callable[[pa.Table], NDArray[np.float32]]
"""Of crops, what each of S snapshots says: probabilities (S, N, C), as of :class:`Inferred`."""


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

    def each(self, snapshots: Sequence[Mapping[str, Tensor]]) -> InferEach:
        """The same with the weights of each snapshot in turn. Crops are looked at once for all of
        them. Methods with snapshots only."""
        ...


@dataclass(frozen=True)
class Fitted:
    """The members that a method has left in its artifact.

    Args:
        spec: what they mean, as plain JSON. With ``precision: bf16`` a network infers so on GPUs.
        weights: name of the tensors that snapshots stand in for.
        others: names of further tensors that it takes to open the method.
        snapshots: finished steps of earlier weights, in tensors ``snapshot_<step>``, oldest first,
            the last one included; none if it knows no earlier ones.
        method: name of the one that opens them, if it was chosen on the way.
    """

    spec: Mapping[str, Any]
    weights: str
    others: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()
    method: str | None = None


class Method(Protocol):
    """What the module of a method holds. It is imported to read a config: no torch at import.

    One that trains may also have ``num_seen(config, num_crops) -> int``: the crops that it learns
    from in all, each as often as it is seen, for a forecast of hours.

    Args:
        VERSION: raised when results change.
        GIVES: the members that :meth:`fit` leaves, all optional.
        USES_EMBEDDINGS: it works on the frozen embeddings.
        SNAPSHOTS: it keeps earlier weights, by which labels are judged and outputs pruned.
        MEASURES: it can measure a hold-out on the way.
        CHOOSES: it withholds labels itself, to choose by.
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
    @property
    def CHOOSES(self) -> bool: ...

    def starts_placed(self, config: Any) -> bool:
        """Whether it starts at clusters that crops were placed in by their embeddings
        (``Problem.placed_N``)."""
        ...

    def sees_through(self, config: Any) -> SeenThrough | None:
        """What of its options its trunk is made of; None if it has no trunk."""
        ...

    def check(self, config: Any, givers: Mapping[str, StageConfig]) -> None:
        """Look at the files that it needs, and at the stages.

        Args:
            givers: config of the stage that gives each member that stage discover takes.

        Raises:
            ConfigError: something cannot be used.
        """
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
