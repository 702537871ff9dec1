"""Discovery by whichever method withheld labels find best. Implements
:class:`gcdis_ray.methods.method.Method`.

Labels are withheld; crops are placed without them, and every candidate is trained without them. The
one that sorts the crops concerned best is trained once more with all labels. A difference within
its own noise decides nothing: then what needs no training stays, the placed clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.methods.auto.config import PLACED, Auto, Config
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.methods.method import Fitted, Trained, load_method
from gcdis_ray.methods.problem import Problem
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import document

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.runtime.base import Work

__all__ = (
    "CHOOSES", "GIVES", "MEASURES", "SNAPSHOTS", "USES_EMBEDDINGS", "VERSION", "Config", "check",
    "fit", "forecast", "load", "num_seen", "sees_through", "starts_placed",
)  # fmt: skip
VERSION = 1
USES_EMBEDDINGS = True
SNAPSHOTS = False
MEASURES = False
CHOOSES = True
GIVES = (document("candidates", optional=True),)


def starts_placed(config: Auto) -> bool:
    return True


def sees_through(config: Auto) -> None:
    return None


def check(config: Auto, givers: Mapping[str, StageConfig]) -> None:
    for name in config.candidates:
        load_method(name).check(config.options(name), givers)


def forecast(config: Auto, inputs: Mapping[str, Size]) -> Size:
    """Of the largest candidate; trials are scratch."""
    names = (PLACED, *config.candidates)
    sizes = [load_method(name).forecast(config.options(name), inputs) for name in names]
    largest = max(sizes, key=lambda size: size.bytes)
    return replace(largest, read_bytes=sum(size.read_bytes for size in sizes) + largest.read_bytes)


def num_seen(config: Auto, num_crops: int) -> int:
    """By every candidate, and once more by the one that takes longest."""
    methods = {name: load_method(name) for name in config.candidates}
    seen = [
        told(config.options(name), num_crops)
        for name, method in methods.items()
        if (told := getattr(method, "num_seen", None))
    ]
    return sum(seen) + max(seen, default=0)


def fit(problem: Problem, config: Auto, work: Work) -> Fitted:
    """Leave document ``candidates``, how each did on withheld labels, and what the chosen one
    leaves.

    Raises:
        ConfigError: fewer than three known classes have labels.
    """
    from gcdis_ray.methods.auto.trials import Trials
    from gcdis_ray.methods.hold_out import choose_hidden

    if problem.placed_N is None:
        raise ArtifactError("crops were not placed by their embeddings", where="embeddings")
    labels_N = problem.crops.read(["class_index"])["class_index"].to_numpy().astype(np.int64)
    shares = HoldOutConfig(share=config.share, withheld=config.withheld, seed=problem.seed, every=0)
    hold_out = choose_hidden(labels_N, problem.num_known, shares)
    assert hold_out is not None, "a share is hidden"
    if len(np.unique(hold_out.told(labels_N))) < 3:  # two classes, and -1 of the others
        raise ConfigError(
            "withholding labels leaves fewer than two known classes to place crops by",
            where="stages.discover.auto.share",
            fix="lower it, label three classes or more, or choose method linkage or kmeans",
        )
    problem = replace(problem, trunk=_shared_trunk(problem, config, work))
    trials = Trials(replace(problem, hold_out=hold_out, placed_N=None), labels_N, work)
    trials.place()
    for name in (PLACED, *config.candidates):
        trials.train(name, config.options(name))
    chosen = trials.chosen()
    work.write_json("candidates", trials.document(chosen))
    fitted = load_method(chosen).fit(problem, config.options(chosen), work)
    return replace(fitted, method=chosen)


def _shared_trunk(problem: Problem, config: Auto, work: Work):
    """What all candidates see crops through: views are made once."""
    from gcdis_ray.methods.trunk import prepare_trunk

    for name in config.candidates:
        seen = load_method(name).sees_through(config.options(name))
        if seen is not None:
            return prepare_trunk(problem, *seen, work)
    return None


def load(
    spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    others: Mapping[str, Mapping[str, Tensor]],
    device: str,
) -> Trained:
    raise NotImplementedError("the chosen method is opened by its own name")
