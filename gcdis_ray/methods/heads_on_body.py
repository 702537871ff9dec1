"""What methods that train heads on a body do alike: check, forecast, fit, open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import DataError
from gcdis_ray.methods.heads_on_body_config import HeadsOnBodyConfig
from gcdis_ray.methods.method import Fitted, SeenThrough
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.stored_method import told_precision
from gcdis_ray.methods.tables import HOLDOUT_CURVE
from gcdis_ray.methods.trunk import GIVES as TRUNK_GIVES
from gcdis_ray.methods.trunk import prepare_trunk
from gcdis_ray.methods.trunk_check import check_trunk
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Member, table, tensors
from gcdis_ray.store.schemas import HISTORY

if TYPE_CHECKING:
    from gcdis_ray.methods.crop_task import CropTask
    from gcdis_ray.runtime.base import Work

GIVES: tuple[Member, ...] = (
    tensors("encoder", optional=True),
    tensors("snapshot_*", optional=True),
    table("history", HISTORY, optional=True),
    table("holdout_curve", HOLDOUT_CURVE, optional=True),
    *TRUNK_GIVES,
)
_CLASSES = 100  # about, for a forecast


def starts_placed(config: HeadsOnBodyConfig) -> bool:
    return config.takes_placed


def sees_through(config: HeadsOnBodyConfig) -> SeenThrough:
    return SeenThrough(config.encoder, config.augment, config.cache_px)


def check(config: HeadsOnBodyConfig, givers: Mapping[str, StageConfig]) -> None:
    """Raises:
    ConfigError: the body cannot be used.
    """
    check_trunk(config.encoder, givers, f"stages.discover.{config.method}.encoder")


def forecast(config: HeadsOnBodyConfig, inputs: Mapping[str, Size]) -> Size:
    """What learns as often as there are snapshots, the body and cached views once. Crops are read,
    and all of that."""
    from gcdis_ray.methods.discovery_model import build_discovery_model
    from gcdis_ray.methods.trunk_size import trunk_size
    from gcdis_ray.models.body_encoder import RowEncoder
    from gcdis_ray.models.stored import stored_bytes

    size = trunk_size(config.encoder, inputs)
    heads = config.num_heads * stored_bytes(
        lambda: build_discovery_model(RowEncoder(size.num_features), config.heads, _CLASSES)
    )
    weights = (config.snapshots + 1) * (size.learning + heads) + size.stored
    stored = weights + size.views
    return Size(700, stored, inputs["crops"].bytes + stored, weights)


def num_seen(config: HeadsOnBodyConfig, num_crops: int) -> int:
    """Crops that it learns from in all, each as often as it is seen."""
    return config.training.num_seen(num_crops)


def check_problem(problem: Problem) -> None:
    """Raises:
    DataError: nothing that heads could learn to tell apart.
    """
    told = problem.told(_labels(problem))
    num_crops = len(told)
    if problem.num_known < 2:
        raise DataError(
            f"{problem.num_known} known class: labels have nothing to tell apart",
            where="classes",
            fix="label objects of two classes or more",
        )
    if problem.num_outputs < problem.num_told:
        raise DataError(
            f"{problem.num_outputs} outputs for {problem.num_told} known classes",
            where="class_count",
            fix="raise the number of classes",
        )
    if not bool((told >= 0).any()):
        raise DataError(
            f"none of {num_crops} crops is labeled", where="crops", fix="label some objects"
        )
    if problem.num_outputs > num_crops:
        raise DataError(
            f"{problem.num_outputs} outputs and {num_crops} crops",
            where="class_count",
            fix="lower the number of classes, or propose more objects",
        )


def _labels(problem: Problem) -> Any:
    import torch

    columns = problem.crops.read(["class_index"])
    return torch.from_numpy(columns["class_index"].to_numpy().astype("int64"))


def fit(
    problem: Problem,
    config: HeadsOnBodyConfig,
    work: Work,
    task_of: Callable[..., CropTask],
    temperature: float,
    told: Mapping[str, Any] | None = None,
) -> Fitted:
    """Leave tensors ``encoder`` and ``snapshot_<step>``, what the trunk leaves, table ``history``
    and, with a hold-out, ``holdout_curve``.

    Args:
        task_of: (problem, training, config, trunk, snapshot_steps=, cache_mb=) -> the training.
        temperature: of the softmax over cosines, for those that ask the network.
        told: what else it takes to build the network again, as plain JSON.

    Raises:
        DataError, ConfigError: as of :func:`check_problem`, of the trunk and of placed clusters.
    """
    from gcdis_ray.methods.placed import check_placed

    check_problem(problem)
    check_placed(problem, config, f"stages.discover.{config.method}.start")
    training = config.training.over(problem.crops.num_rows)
    steps = config.snapshot_steps(training.steps)
    trunk = prepare_trunk(problem, config.encoder, config.augment, config.cache_px, work)
    alone = replace(problem, space=None)  # of no use to training workers
    work.fit(
        task_of(alone, training, config, trunk, snapshot_steps=steps, cache_mb=config.cache_mb)
    )
    spec = dict(
        trunk=trunk.spec.model_dump(mode="json"),
        uses_embeddings=trunk.spec.is_embedding,
        heads=config.heads.model_dump(mode="json"),
        num_known=problem.num_told,
        num_outputs=problem.num_outputs,
        temperature=temperature,
        **told_precision(training),
        **(told or {}),
    )
    return Fitted(spec, "encoder", trunk.members, tuple(steps))
