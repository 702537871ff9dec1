"""UNO (Fini, Sangineto, Lathuilière, Zhong, Nabi, Ricci; ICCV 2021), as a method: one objective for
labels and pseudo-labels.

Implements :class:`gcdis_ray.methods.method.Method`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gcdis_ray.methods import heads_on_body
from gcdis_ray.methods.heads_on_body import (
    check,
    forecast,
    num_seen,
    sees_through,
    starts_placed,
)
from gcdis_ray.methods.method import Fitted
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.uno.config import Config, NovelHeadsConfig

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.methods.trained_network import TrainedNetwork
    from gcdis_ray.runtime.base import Work

__all__ = (
    "CHOOSES", "GIVES", "MEASURES", "SNAPSHOTS", "USES_EMBEDDINGS", "VERSION", "Config", "check",
    "fit", "forecast", "load", "num_seen", "sees_through", "starts_placed",
)  # fmt: skip
VERSION = 1
USES_EMBEDDINGS = False
SNAPSHOTS = True
MEASURES = True
CHOOSES = False
GIVES = heads_on_body.GIVES


def fit(problem: Problem, config: Config, work: Work) -> Fitted:
    """As :func:`gcdis_ray.methods.heads_on_body.fit`."""
    from gcdis_ray.methods.uno.task import UnoTask

    novel = {"novel": config.novel.model_dump(mode="json")}
    return heads_on_body.fit(problem, config, work, UnoTask, config.temperature, novel)


def load(
    spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    others: Mapping[str, Mapping[str, Tensor]],
    device: str,
) -> TrainedNetwork:
    from gcdis_ray.methods.opened import open_network
    from gcdis_ray.methods.uno.model import build_uno

    novel = NovelHeadsConfig.model_validate(spec["novel"])
    return open_network(
        lambda encoder, heads: build_uno(
            encoder, heads, novel, spec["num_known"], spec["num_outputs"]
        ),
        spec,
        weights,
        others,
        device,
    )
