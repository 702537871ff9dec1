"""Count: how many classes are there, known and novel together?

Estimated from frozen embeddings and the labels of the known classes, or given by hand. It never
sees what the unlabeled crops really are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from gcdis_ray.artifacts import Artifact, Size
from gcdis_ray.config import StageConfig
from gcdis_ray.runtime.base import Work

VERSION = 1
TAKES = ("embed", "ingest")
SEEDED = True


class Config(StageConfig):
    """The estimator, or the number itself."""

    method: Literal["labeled_accuracy"] = Field(
        "labeled_accuracy", description="how to estimate it, unless num_novel is given"
    )
    num_novel: int | None = Field(
        None, ge=0, le=1_000_000, description="number of novel classes, given by hand"
    )
    max_classes: int | None = Field(
        None, ge=2, le=1_000_000, description="largest number tried; none: five per known class, "
        "at least 25, and ten crops a class",
    )  # fmt: skip
    dims: int = Field(64, ge=1, le=4096, description="principal components of the embeddings")
    num_seeds: int = Field(4, ge=1, le=100, description="k-means runs per number of classes")
    n_init: int = Field(2, ge=1, le=100, description="starts per k-means run")
    max_labeled_per_class: int = Field(
        60, ge=1, le=1_000_000, description="labeled crops drawn per known class"
    )
    max_unlabeled: int = Field(20_000, ge=1, le=10_000_000, description="unlabeled crops drawn")
    class_balanced: bool = Field(
        True, description="accuracy is averaged over classes, not over crops"
    )
    silhouette_weight: float = Field(
        0.5, ge=0, le=100, description="weight of the silhouette beside labeled accuracy"
    )
    tie: float = Field(
        0.03, ge=0, lt=1, description="share below the best score that is as good: the largest "
        "such number is taken, as a class too many costs less than one too few",
    )  # fmt: skip
    flatness: float = Field(
        0.06, ge=0, lt=1, description="share below the best score that is still in the interval"
    )
    num_candidates: int = Field(
        20, ge=3, le=1000, description="numbers tried on a logarithmic grid, then around the best"
    )
    backend: Literal["torch", "faiss"] = Field("torch", description="nearest-center search")


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """No table: one curve."""
    return Size(0, 120 * 2 * config.num_candidates)


def run(inputs: Mapping[str, Artifact], config: Config, work: Work) -> None:
    """Write JSON ``class_count``."""
    num_known = len(inputs["ingest"].json("classes"))
    if config.num_novel is not None:
        total = num_known + config.num_novel
        result: dict[str, Any] = {
            "num_classes": total, "interval": [total, total], "curve": [], "warning": None,
        }  # fmt: skip
    else:
        result = _estimate(inputs["embed"], num_known, config, work)
    result |= {
        "method": config.method if config.num_novel is None else "given",
        "num_known": num_known,
        "num_novel": result["num_classes"] - num_known,
    }
    work.write_json("class_count", result)


def _estimate(embed: Artifact, num_known: int, config: Config, work: Work) -> dict[str, Any]:
    import torch

    from gcdis_ray.clustering.class_count.labeled_accuracy import Search, estimate
    from gcdis_ray.clustering.class_count.points import Settings

    rows = embed.table("embeddings").read(["class_index", "embedding"])
    labels_N = torch.tensor(rows["class_index"].to_numpy()).to(torch.int64)
    values = rows["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    embeddings_ND = torch.tensor(values).reshape(len(rows), -1)
    num_unlabeled = int((labels_N < 0).sum())
    most = config.max_classes
    if most is None:
        most = max(num_known, min(max(25, 5 * num_known), num_unlabeled // 10))
    search = Search(
        max_classes=most,
        settings=Settings(
            dims=config.dims,
            n_init=config.n_init,
            max_labeled_per_class=config.max_labeled_per_class,
            max_unlabeled=config.max_unlabeled,
            backend=config.backend,
        ),
        num_seeds=config.num_seeds,
        class_balanced=config.class_balanced,
        silhouette_weight=config.silhouette_weight,
        tie=config.tie,
        flatness=config.flatness,
        num_candidates=config.num_candidates,
    )
    at_most = 2 * config.num_candidates
    found = estimate(
        embeddings_ND,
        labels_N,
        search,
        work.seed,
        lambda done: work.progress(done, at_most, "counts tried"),
    )
    low, high = found.interval
    return {
        "num_classes": max(found.num_classes, num_known),
        "interval": [max(low, num_known), max(high, num_known)],
        "curve": found.curve,
        "warning": found.warning,
    }
