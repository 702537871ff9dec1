"""Count: how many classes are there, known and novel together?

Estimated from frozen embeddings and the labels of the known classes, or given by hand. It never
sees what the unlabeled crops really are. The embeddings are read once; all trials of all estimators
are independent jobs on a few small draws of them, which run wherever the runtime has a core.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import DataError
from gcdis_ray.runtime.base import Work
from gcdis_ray.stages.objective import Measurement, Objective, Probe
from gcdis_ray.store.artifacts import Artifact, Size, Table, TensorFile, Workload
from gcdis_ray.store.members import Inputs, document, table, tensors
from gcdis_ray.store.schemas import schema

if TYPE_CHECKING:
    from gcdis_ray.clustering.class_count.choose import Choice, ClassCount
    from gcdis_ray.clustering.class_count.judged_space import PointSpace
    from gcdis_ray.clustering.class_count.points import CountSettings
    from gcdis_ray.clustering.class_count.trials import Estimator, Job, Trial
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

TRIALS = schema(  # one clustering of one draw of crops each, see clustering.class_count.trials
    method=pa.string(),
    draw=pa.int32(),
    parameter=pa.float64(),
    num_classes=pa.int32(),
    recall=pa.list_(pa.float64()),  # of every known class
    weight=pa.list_(pa.float64()),  # of it in the score
    silhouette=pa.float64(),
    inertia=pa.float64(),
)

ID = "count"
VERSION = 4
TAKES = ("embeddings", "classes")
GIVES = (
    document("class_count"),
    tensors("points", optional=True),
    table("trials", TRIALS, optional=True),
    table("trials_refined", TRIALS, optional=True),
)
SEEDED = True

Estimates = Literal["mixture", "labeled_accuracy", "holdout", "density"]
Method = Literal["combined", "mixture", "labeled_accuracy", "holdout", "density"]
COMBINED: tuple[Estimates, ...] = ("mixture", "labeled_accuracy", "holdout")


class Config(StageConfig):
    """The estimators, or the number itself."""

    method: Method = Field(
        "combined",
        description="the estimator that counts, unless num_novel is given. combined: the geometric "
        "mean of the next three, which err in different directions; mixture: Gaussian classes, "
        "judged on hidden known classes; labeled_accuracy: k-means, judged on known "
        "classes; holdout: semi-supervised k-means, judged on hidden known classes; density: "
        "HDBSCAN, judged on known classes",
    )
    also: tuple[Estimates, ...] = Field(
        (), description="estimators that are shown beside it and change nothing"
    )
    num_novel: int | None = Field(
        None, ge=0, le=1_000_000, description="number of novel classes, given by hand"
    )
    max_classes: int | None = Field(
        None, ge=2, le=1_000_000, description="largest number tried by labeled_accuracy and "
        "holdout. mixture starts at three times as many small clusters, and may count more, as may "
        "density: a count from here on comes with a warning. none: five per known class, at least "
        "25, and four unlabeled crops a class",
    )  # fmt: skip
    dims: int = Field(128, ge=1, le=4096, description="principal components of the embeddings")
    space: Literal["principal", "half_whitened", "whitened"] | None = Field(
        None,
        description="how much a component counts. principal: as its spread; half_whitened: as the "
        "square root of it; whitened: all alike; none: so that labeled crops lie nearest to those "
        "of their class",
    )
    num_seeds: int = Field(
        5, ge=1, le=100, description="draws of crops; each hides other known classes"
    )
    n_init: int = Field(1, ge=1, le=100, description="starts per k-means run")
    max_labeled_per_class: int = Field(
        60, ge=1, le=1_000_000, description="labeled crops drawn per known class"
    )
    max_unlabeled: int | None = Field(
        None, ge=1, le=10_000_000, description="unlabeled crops drawn; none: 10,000, or 30 per "
        "known class if that is more",
    )  # fmt: skip
    class_balanced: bool = Field(
        True, description="labeled accuracy is averaged over classes, not over crops"
    )
    min_size: int = Field(3, ge=1, le=1000, description="crops that make a class (mixture)")
    tie: float = Field(0.005, ge=0, lt=1, description="scores this much below the best are as good")
    coverage: float = Field(
        0.9, gt=0, lt=1, description="share of resampled estimates inside the interval"
    )
    num_candidates: int = Field(
        20, ge=3, le=1000, description="numbers tried on a logarithmic grid, then around the best"
    )
    backend: Literal["torch", "faiss"] = Field(
        "torch", description="nearest-center search; faiss: on GPUs where there are some"
    )


def warning(artifact: Artifact) -> str | None:
    """Why the estimated number of classes should not be trusted, if it should not."""
    told = artifact.json("class_count").get("warning")
    return f"class count: {told}" if told else None


def objectives() -> Sequence[Objective]:
    """Of a k-means of the embeddings into the known and ``num_novel`` more classes."""
    probe = Probe(
        kind="cluster",
        does="clusters embeddings",
        takes=TAKES,
        fields=(
            "num_novel", "dims", "space", "max_labeled_per_class", "max_unlabeled", "n_init",
            "backend",
        ),
        measurement=_clustering,
        whole_numbers={"num_novel": "clusters into known + {} classes"},
    )  # fmt: skip
    meanings = {
        "labeled_accuracy": "share of labeled crops in the cluster of their class",
        "balanced_accuracy": "labeled_accuracy, averaged over known classes",
        "silhouette": "how far crops are from the next cluster; knows no label at all",
    }
    return [Objective(name, "max", meaning, probe=probe) for name, meaning in meanings.items()]


def _clustering(inputs: Inputs, config: Config, seed: int) -> Measurement:
    from gcdis_ray.clustering.class_count.clustered import Clustering, load_points

    if config.num_novel is None:
        raise DataError("no number of classes to cluster into", where="stages.count.num_novel")
    how = settings(config)
    num_classes = len(inputs.json("classes")) + config.num_novel
    return Measurement(
        sample=(how.dims, how.space, how.max_labeled_per_class, how.max_unlabeled, seed),
        load=lambda: load_points(inputs.table("embeddings"), how, seed),
        measure=Clustering(num_classes, how, seed),
        cost=num_classes,
        metrics={"num_classes": num_classes},
    )


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """The draws of crops, and a row per trial. More is drawn with hundreds of known classes. Every
    worker reads all that was drawn, once for each of two grids."""
    if config.num_novel is not None:
        return Size(0, 200)
    drawn = min(inputs["embeddings"].rows, 2 * (config.max_unlabeled or 10_000))
    points = 4 * config.num_seeds * drawn * config.dims
    methods = [*(COMBINED if config.method == "combined" else [config.method]), *config.also]
    trials = 2 * config.num_candidates * config.num_seeds * len(methods)
    read = 2 * inputs["embeddings"].bytes + 2 * points
    return Size(trials, points + 400 * trials, read)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Trials: a clustering of the crops drawn each; nothing if the number is given."""
    return Workload(rows=made.rows)


def sections(view: RunView) -> Sequence[Section]:
    """The estimate and its curve."""
    from gcdis_ray.report.discovery_section import discovery_sections

    return discovery_sections(view)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write JSON ``class_count``; unless it is given, also tensors ``points`` and table
    ``trials`` (``trials_refined``: those of the second grid, if any)."""
    num_known = len(inputs.json("classes"))
    if config.num_novel is not None:
        total = num_known + config.num_novel
        result: dict[str, Any] = {
            "num_classes": total, "interval": [total, total], "curve": [], "warning": None,
            "space": None, "combines": [], "others": [],
        }  # fmt: skip
    else:
        result = _estimate(inputs.table("embeddings"), num_known, config, work)
    result |= {
        "method": config.method if config.num_novel is None else "given",
        "num_known": num_known,
        "num_novel": result["num_classes"] - num_known,
    }
    work.write_json("class_count", result)


def _estimate(embeddings: Table, num_known: int, config: Config, work: Work) -> dict[str, Any]:
    points, sizes, space = _draw(embeddings, num_known, config, work)
    trials = _run(estimators(config, sizes, work.seed), points, work, config.backend == "faiss")
    counts = class_counts(config, sizes, work.seed, trials)
    return _document(counts.pop(config.method)) | {
        "space": space,
        "combines": list(COMBINED) if config.method == "combined" else [],
        "others": [{"method": method, **_document(count)} for method, count in counts.items()],
    }


def class_counts(
    config: Config, sizes: Sequence[int], seed: int, trials: Mapping[Estimates, Sequence[Trial]]
) -> dict[Method, ClassCount]:
    """From the trials of all :func:`estimators`; the count that is asked for comes first."""
    from gcdis_ray.clustering.class_count.choose import choose, combine
    from gcdis_ray.clustering.class_count.mixture import MAX_CLUSTERS

    choice = _choice(config, sizes, seed)
    counts: dict[Method, ClassCount] = {}
    if config.method == "combined":
        counts["combined"] = combine([trials[method] for method in COMBINED], choice)
    for method, mine in trials.items():
        bounded = min(choice.most or MAX_CLUSTERS, MAX_CLUSTERS)
        counts[method] = choose(
            mine, replace(choice, most=bounded) if method == "mixture" else choice
        )
    return counts


def settings(config: Config) -> CountSettings:
    """How points are drawn and clustered."""
    from gcdis_ray.clustering.class_count.points import CountSettings

    return CountSettings(
        dims=config.dims,
        space=config.space,
        max_labeled_per_class=config.max_labeled_per_class,
        max_unlabeled=config.max_unlabeled,
        n_init=config.n_init,
        backend=config.backend,
    )


def estimators(config: Config, sizes: Sequence[int], seed: int) -> dict[Estimates, Estimator]:
    """The estimators that the config asks for, those that count first.

    Args:
        sizes: number of unlabeled crops, then of labeled crops of each known class.
    """
    from gcdis_ray.clustering.class_count.density import Density
    from gcdis_ray.clustering.class_count.hidden_classes import HiddenClasses
    from gcdis_ray.clustering.class_count.labeled_accuracy import CountGrid, LabeledAccuracy
    from gcdis_ray.clustering.class_count.mixture import Mixture

    num_known, num_draws = len(sizes) - 1, config.num_seeds
    labeled, most, how = _num_labeled(sizes), _most(config, sizes), settings(config)
    grid = CountGrid(max(2, labeled), most, config.num_candidates, num_draws, config.tie)
    found: dict[Estimates, Estimator] = {}
    for method in (*(COMBINED if config.method == "combined" else [config.method]), *config.also):
        match method:
            case "mixture":
                found[method] = Mixture(num_known, num_draws, seed, 3 * most, config.min_size)
            case "labeled_accuracy":
                found[method] = LabeledAccuracy(num_known, grid, how, seed, config.class_balanced)
            case "holdout":
                found[method] = HiddenClasses(num_known, grid, how, seed)
            case "density":
                largest = sum(sizes) // (2 * labeled)
                found[method] = Density(num_known, num_draws, largest)
    return found


def _choice(config: Config, sizes: Sequence[int], seed: int) -> Choice:
    from gcdis_ray.clustering.class_count.choose import Choice

    return Choice(len(sizes) - 1, config.tie, config.coverage, seed, most=_most(config, sizes))


def _most(config: Config, sizes: Sequence[int]) -> int:
    """The largest number of classes to try; there may be no four crops for a second class."""
    num_known = len(sizes) - 1
    most = config.max_classes or min(max(25, 5 * num_known), sizes[0] // 4)
    return max(most, num_known, 2, _num_labeled(sizes))


def _num_labeled(sizes: Sequence[int]) -> int:
    """Known classes with a labeled crop, at least 1."""
    return max(1, sum(size > 0 for size in sizes[1:]))


def _document(count: ClassCount) -> dict[str, Any]:
    return asdict(count) | {"interval": list(count.interval)}


def _draw(
    embeddings: Table, num_known: int, config: Config, work: Work
) -> tuple[TensorFile, list[int], PointSpace]:
    """Write the draws; also the number of unlabeled crops, then of those of each known class; and
    the space, which is chosen on the first draw."""
    import torch

    from gcdis_ray.clustering.class_count.points import prepare_draws
    from gcdis_ray.data.crops.crop_vectors import read_vectors

    labels_N = torch.cat(
        [
            torch.tensor(rows["class_index"].to_numpy()).to(torch.int64)
            for rows in embeddings.iter_shards(["class_index"])
        ]
    )
    try:
        draws, space = prepare_draws(
            lambda rows_M: read_vectors(embeddings, rows_M),
            labels_N,
            settings(config),
            [work.seed * 1000 + number for number in range(config.num_seeds)],
        )
    except DataError as error:
        raise error.at("stages.count", "set stages.count.num_novel") from error
    tensors = {}
    for number, points in enumerate(draws):
        tensors[f"points_{number}"] = points.points_ND.clone()  # equal draws are one
        tensors[f"labels_{number}"] = points.labels_N.clone()
    work.write_tensors("points", tensors)
    sizes = torch.bincount(labels_N + 1, minlength=num_known + 1).tolist()
    return work.tensor_file("points"), sizes, space


def _run(
    estimators: Mapping[Estimates, Estimator], points: TensorFile, work: Work, wants_gpu: bool
) -> dict[Estimates, list[Trial]]:
    """All trials: a round of jobs of all estimators, then one of those that look closer.

    Args: wants_gpu: of the jobs' shard task.
    """
    from gcdis_ray.clustering.class_count.trials import Trial

    trials: dict[Estimates, list[Trial]] = {method: [] for method in estimators}
    for member in ("trials", "trials_refined"):
        args = [
            {"method": method, "job": job}
            for method, estimator in estimators.items()
            for job in estimator.jobs(trials[method])
        ]
        if args:
            task = RunTrials(dict(estimators), points, member, wants_gpu)
            told = work.map_shards(task, [], gives=(member,), args=args, unit="jobs")[member]
            for row in told.read().to_pylist():
                method = row.pop("method")
                trials[method].append(
                    Trial(**row | {name: tuple(row[name]) for name in ("recall", "weight")})
                )
    return trials


@dataclass(frozen=True)
class RunTrials:
    """Shard task without tables that gives ``member``: the trials of one job."""

    estimators: Mapping[Estimates, Estimator]
    points: TensorFile
    member: str
    wants_gpu: bool = False

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        from gcdis_ray.clustering.class_count.points import Points

        tensors = self.points.load()

        def run(index: int, *, method: Estimates, job: Job) -> Mapping[str, pa.Table]:
            points = Points(tensors[f"points_{job.draw}"], tensors[f"labels_{job.draw}"])
            rows = [
                {"method": method, **asdict(trial)}
                for trial in self.estimators[method].run(job, points, device)
            ]
            return {self.member: pa.Table.from_pylist(rows, TRIALS)}

        return run
