"""Discovery by placing alone: no training, as a method.

Crops are placed in clusters (:mod:`gcdis_ray.methods.placing`); unit prototypes that tell the
clusters apart by the cosine with centred embeddings sort crops that nobody had seen. Implements
:class:`gcdis_ray.methods.method.Method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ArtifactError
from gcdis_ray.methods.linkage.config import Config
from gcdis_ray.methods.method import Fitted
from gcdis_ray.methods.problem import Problem
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import tensors

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.methods.nearest_centre import NearestCentre
    from gcdis_ray.runtime.base import Work

VERSION = 1
USES_EMBEDDINGS = True
SNAPSHOTS = False
MEASURES = False
CHOOSES = False
_PROTOTYPES, _BACKBONE = "linkage_prototypes", "linkage_backbone"
GIVES = (tensors(_PROTOTYPES, optional=True), tensors(_BACKBONE, optional=True))
_CLASSES = 100  # about, for a forecast


def starts_placed(config: Config) -> bool:
    return True


def sees_through(config: Config) -> None:
    return None


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    """There is no file to look at."""


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Vectors are read three times, to place them, for prototypes and to assign them."""
    embeddings = inputs["embeddings"]
    weights = embeddings.weight_bytes
    vectors = embeddings.bytes - weights
    width = vectors // (4 * max(embeddings.rows, 1))
    stored = weights + 4 * width * (1 + _CLASSES)
    read = 3 * vectors + weights + stored
    return Size(embeddings.rows, vectors + stored, read, stored)


def fit(problem: Problem, config: Config, work: Work) -> Fitted:
    """Leave tensors ``linkage_prototypes`` and, of a backbone with weights, ``linkage_backbone``.

    Raises:
        ArtifactError: the problem has no embeddings, or crops were not placed.
    """
    from gcdis_ray.methods.linkage.prototypes import fit_to_placed

    space = problem.space
    if space is None or problem.placed_N is None:
        raise ArtifactError("crops were not placed by their embeddings", where="embeddings")
    work.write_tensors(_PROTOTYPES, fit_to_placed(problem, space.table("embeddings"), config))
    others = ()
    if space.has("backbone"):
        work.write_tensors(_BACKBONE, space.tensor_file("backbone").load())
        others = (_BACKBONE,)
    spec = {"embed_spec": space.json("embed_spec"), "temperature": config.temperature}
    return Fitted(spec, _PROTOTYPES, others)


def load(
    spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    others: Mapping[str, Mapping[str, Tensor]],
    device: str,
) -> NearestCentre:
    from gcdis_ray.clustering.spaces import Space
    from gcdis_ray.methods.nearest_centre import NearestCentre

    return NearestCentre(
        Space.of(weights).to(device),
        weights["centres_KC"].to(device),
        float(spec["temperature"]),
        spec["embed_spec"],
        others.get(_BACKBONE),
    )
