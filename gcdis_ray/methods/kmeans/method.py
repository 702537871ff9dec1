"""Discovery without training: k-means on the frozen embeddings, as a method.

Implements :class:`gcdis_ray.methods.method.Method`. What it keeps are the centres, how vectors are
laid out before they are compared with them, and the weights of the backbone: all it takes to sort
crops that nobody had seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ArtifactError
from gcdis_ray.methods.kmeans.config import Config
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
_CENTRES, _BACKBONE = "kmeans_centres", "kmeans_backbone"
GIVES = (tensors(_CENTRES, optional=True), tensors(_BACKBONE, optional=True))
_CLASSES = 100  # about, for a forecast


def starts_placed(config: Config) -> bool:
    return False


def sees_through(config: Config) -> None:
    return None


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    """There is no file to look at."""


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Vectors are read three times, for their labels, to find centres and to assign; as they are
    compared, they go with the assignments."""
    embeddings = inputs["embeddings"]
    weights = embeddings.weight_bytes
    vectors = embeddings.bytes - weights
    width = vectors // (4 * max(embeddings.rows, 1))
    kept = min(config.components or width, width)
    projected = 4 * width * kept if config.components else 0
    stored = weights + projected + 4 * (width + _CLASSES * kept)
    left = 4 * kept * embeddings.rows + stored
    return Size(embeddings.rows, left, 3 * vectors + weights + stored, stored)


def fit(problem: Problem, config: Config, work: Work) -> Fitted:
    """Leave tensors ``kmeans_centres`` and, of a backbone with weights, ``kmeans_backbone``.

    Raises:
        ArtifactError: the problem has no embeddings.
        DataError: there is no crop.
    """
    from gcdis_ray.methods.kmeans.model import find_centres

    space = problem.space
    if space is None:
        raise ArtifactError("k-means works on embeddings, and there are none", where="embeddings")
    work.write_tensors(_CENTRES, find_centres(problem, space.table("embeddings"), config))
    others = ()
    if space.has("backbone"):
        work.write_tensors(_BACKBONE, space.tensor_file("backbone").load())
        others = (_BACKBONE,)
    spec = {"embed_spec": space.json("embed_spec"), "temperature": config.temperature}
    return Fitted(spec, _CENTRES, others)


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
