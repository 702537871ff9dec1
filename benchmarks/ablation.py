"""Long-tailed discovery, part by part: mean and spread over seeds of what each part of GCDIS gives.

    python benchmarks/ablation.py                            all sets, three seeds
    python benchmarks/ablation.py --only digits --seeds 0 1  some of it
    python benchmarks/ablation.py --data DIR                 where the photographs are

Discovery is measured on crops of true masks, so that no proposer is between. Rows: k-means and
semi-supervised k-means on frozen embeddings; f_d with a fixed temperature, a cosine schedule and
ITA, with and without soft attention; on digits also ``fixed-high``, a control: the largest
temperature of ITA for all. On photographs the body is MobileNetV2 with ImageNet weights, ``frozen``
or with the last block ``tuned``, which has no soft attention. The part ``segmenter`` runs the whole
pipeline on digit scenes, one discovery a seed, and trains the segmenter with every mode of RDL from
the same pseudo-labels.

A result is written as soon as it is there, under the key of its artifact: running again goes on
where it stopped and makes anew only what other code or another config would change. Needs no Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import ablation_data
import numpy as np
import pyarrow.compute as pc
import torch
from ablation_data import ROOT, ImageSet

from gcdis_ray.clustering.kmeans import kmeans
from gcdis_ray.config import ComputeConfig, RunConfig
from gcdis_ray.evaluation.crop_truth import MatchCrops
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.metrics import discovery
from gcdis_ray.metrics.frequency import THIRDS, frequency_thirds
from gcdis_ray.run.checks import section
from gcdis_ray.run.graph import load_recipe
from gcdis_ray.run.pipeline import Event, Pipeline, load_config
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.artifacts import Artifact

PHOTOGRAPHS = {
    "caltech": (ablation_data.caltech, "caltech101-crops/labels.json"),
    "coco": (ablation_data.coco, "coco-subset/instances.json"),
}
PARTS = ("digits", "segmenter", *PHOTOGRAPHS)
STEPS = {"digits": 300, "segmenter": 300, "caltech": 100, "coco": 100}
# Far smaller than the configs': some sixty trainings are to fit two cores. --set makes it larger.
SMALL = [
    "stages.discover.gcdis.training.batch_size=64",
    "stages.discover.gcdis.training.micro_batches=1",
    "stages.discover.gcdis.model.encoder.widths=[16,32,64]",
    "stages.discover.gcdis.model.encoder.blocks=[1,1,1]",
    "stages.discover.gcdis.model.encoder.stem_width=16",
]
SMALL_DIGITS = [*SMALL, "stages.discover.gcdis.model.encoder.input_px=24"]
SMALL_PHOTOGRAPHS = [
    "stages.discover={method: gcdis}",
    "stages.discover.gcdis.training.batch_size=64",
    "stages.discover.gcdis.training.micro_batches=1",
]
ENCODERS = {  # on the body of the embeddings, from placed clusters
    "": [],
    "frozen": [],
    "tuned": ["stages.discover.gcdis.model.encoder.trainable=1"],
}
SMALL_SEGMENTER = [
    *SMALL_DIGITS,
    "stages.propose.detector.min_side_px=96",
    "stages.propose.detector.anchor_sizes_px=[16, 32, 64]",
    "stages.propose.training.steps=150",
    "stages.segment.training.steps=150",
]
TEMPERATURES = {
    "fixed": ["mode=fixed"],
    "schedule": ["mode=cosine"],
    "ITA": ["mode=instance"],
    "fixed-high": ["mode=fixed"],
}
CONTROL = "fixed-high"  # at the maximum of ITA
# Rows: encoder, temperature, with soft attention
Row = tuple[str, str, bool]
DIGIT_ROWS: list[Row] = [
    *(
        ("", mode, attention)
        for mode in ("fixed", "schedule", "ITA")
        for attention in (True, False)
    ),
    ("", CONTROL, True),
]
PHOTOGRAPH_ROWS: list[Row] = [
    (encoder, mode, False)
    for encoder in ("frozen", "tuned")
    for mode in ("fixed", "schedule", "ITA")
]
DECAYS = ("none", "global_cut", "classwise_cut", "quadratic", "quadratic_global")
COMPUTE = ComputeConfig(runtime="local", workers=1, threads=1, checkpoint_every_s=120)
KMEANS_STARTS = 10

Result = dict[str, Any]


class Bench:
    """Runs on one storage and in this process, so that variants and seeds share what is equal."""

    def __init__(self, folder: Path) -> None:
        self._storage, self._runtime = str(folder), LocalRuntime(COMPUTE)
        self._sources: dict[tuple[str, str], str | None] = {}  # by node and its config

    def pipeline(self, config: RunConfig, reseed: tuple[str, int] | None = None) -> Pipeline:
        """A run, nothing made yet.

        Args:
            reseed: a node, and the seed of it and of all later ones.
        """
        config = config.model_copy(update={"storage": self._storage, "compute": COMPUTE})
        settings = {
            name: section(config, wired).model_dump_json()
            for name, wired in load_recipe(config.recipe).items()
        }
        known = {
            name: self._sources[name, of]
            for name, of in settings.items()
            if (name, of) in self._sources
        }
        pipeline = Pipeline(config, sources=known, reseed=reseed)
        for name, of in settings.items():  # it reads files
            self._sources[name, of] = pipeline.nodes[name].source
        return pipeline

    def make(self, pipeline: Pipeline, until: str) -> Pipeline:
        """What is missing up to a node."""
        pipeline.run(lambda: self._runtime, _show(), until=until)
        return pipeline


def _show() -> Callable[[Event], None]:
    began: dict[str, float] = {}

    def show(event: Event) -> None:
        name, progress = event.stage, event.progress
        began.setdefault(name, time.monotonic())
        if progress and sys.stderr.isatty():
            seconds = time.monotonic() - began[name]
            line = f"\r    {name} {progress.done}/{progress.total} {progress.unit} {seconds:.0f} s"
            print(line, end="\x1b[K\r", file=sys.stderr, flush=True)

    return show


def found(pipeline: Pipeline, member: str) -> Artifact:
    """The artifact that a member lies in."""
    giver = pipeline.giver(member)
    artifact = pipeline.artifact(giver) if giver else None
    assert artifact is not None, f"{member} has been made"
    return artifact


class Job(NamedTuple):
    """One result: which row of which table, how its config differs, and how it is made."""

    part: str
    variant: str
    seed: int
    key: str  # of the artifact it scores
    run: Callable[[], Result]


# ---------------------------------------------------------------- discovery on true masks


class Discovery:
    """Rows of one set's table. Crops and embeddings are made once, for all variants and seeds."""

    def __init__(
        self,
        bench: Bench,
        part: str,
        images: ImageSet,
        masks: Path,
        changes: Sequence[str],
        last: Sequence[str],
    ) -> None:
        self._bench, self._part = bench, part
        self._path, self._last = images.config, last
        self._rows = DIGIT_ROWS if part == "digits" else PHOTOGRAPH_ROWS
        self._overrides = [
            *images.overrides,
            "stages.propose.source=external",
            f"stages.propose.external={{results: {masks}}}",
            "stages.propose.min_score=0",
            "stages.propose.max_per_image=1000",
            "stages.crop.max_proposals_per_image=1000",
            f"stages.count.num_novel={images.num_novel}",
            *changes,
            *last,
        ]

    def jobs(self, seeds: Sequence[int]) -> list[Job]:
        jobs = []
        for seed in seeds:
            for supervised in (False, True):
                name = "semi-supervised k-means" if supervised else "k-means"
                pipeline = self._bench.pipeline(load_config(self._path, self._overrides))
                run = partial(self._kmeans, pipeline, seed, supervised)
                jobs.append(Job(self._part, name, seed, pipeline.nodes["count"].key, run))
            for encoder, mode, attention in self._rows:
                name = f"{encoder} {mode}".strip() + ("" if attention else ", no attention")
                changes = self._changes(encoder, mode, attention)
                config = load_config(self._path, [*self._overrides, *changes])
                pipeline = self._bench.pipeline(config, reseed=("discover", seed))
                run = partial(self._discover, pipeline)
                jobs.append(Job(self._part, name, seed, pipeline.nodes["discover"].key, run))
        return jobs

    def _kmeans(self, pipeline: Pipeline, seed: int, supervised: bool) -> Result:
        self._bench.make(pipeline, until="count")
        rows = found(pipeline, "embeddings").table("embeddings").read(["class_index", "embedding"])
        points_ND = torch.tensor(matrix(rows["embedding"]))
        labels_N = torch.tensor(rows["class_index"].to_numpy()).long()
        clusters = kmeans(
            points_ND,
            found(pipeline, "class_count").json("class_count")["num_classes"],
            torch.Generator().manual_seed(seed),
            labels_N=labels_N if supervised else None,
            n_init=KMEANS_STARTS,
        )
        return score(pipeline, clusters.cluster_N.numpy(), supervised)

    def _discover(self, pipeline: Pipeline) -> Result:
        self._bench.make(pipeline, until="discover")
        rows = found(pipeline, "assignments").table("assignments").read(["cluster_id"])
        return score(pipeline, rows["cluster_id"].to_numpy(), True) | diagnostics(pipeline)

    def _changes(self, encoder: str, mode: str, attention: bool) -> list[str]:
        at = "stages.discover.gcdis.discovery.temperature."
        changes = [*ENCODERS[encoder], *(at + change for change in TEMPERATURES[mode])]
        if mode == CONTROL:
            base = load_config(self._path, self._overrides).stages.discover.gcdis
            changes.append(f"{at}minimum={base.discovery.temperature.maximum}")
        changes.append(f"stages.discover.gcdis.model.attention.enabled={attention}".lower())
        return [*changes, *self._last]


def truth_of_crops(pipeline: Pipeline) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Which crops are unlabeled objects, the class of each of these (a row number of the ground
    truth's categories), and which classes are known, by their class index."""
    sealed = found(pipeline, "truth_instances")
    categories = sorted(sealed.json("categories"), key=lambda row: row["category_id"])
    column_of = {row["category_id"]: n for n, row in enumerate(categories)}
    crops = found(pipeline, "crops").table("crops")
    proposals = found(pipeline, "proposals").table("proposals")
    instances, match = sealed.table("truth_instances"), MatchCrops(min_iou=0.5).open("cpu")
    category_N = np.full(crops.num_rows, -1, dtype=np.int64)
    for index in range(crops.num_shards):
        shard = crops.shard(index, ("crop_index", "source_id", "class_index"))
        free = shard.filter(pc.field("class_index") < 0)
        told = match(index, instances.shard(index), free, proposals.shard(index))["crop_truth"]
        category_N[told["crop_index"].to_numpy()] = told["category_id"].to_numpy()
    matched_N = category_N >= 0
    classes = np.array([column_of[c] for c in category_N[matched_N].tolist()])
    known = sorted(found(pipeline, "classes").json("classes"), key=lambda row: row["class_index"])
    return matched_N, classes, [column_of[row["category_id"]] for row in known]


def score(pipeline: Pipeline, cluster_N: np.ndarray, identified: bool) -> Result:
    """Accuracy on unlabeled crops.

    Args:
        cluster_N: of every crop.
        identified: clusters below the number of known classes are these classes. Then ``all``,
            ``known``, ``novel`` and the thirds follow protocol ``known_identity``, else
            ``hungarian_all``; ``hungarian`` is always the latter.
    """
    matched_N, class_N, known = truth_of_crops(pipeline)
    clusters, size = cluster_N[matched_N].astype(np.int64), int(class_N.max()) + 1
    size = max(size, max(known) + 1)
    fixed = dict(enumerate(known)) if identified else None
    accuracy, mapping = discovery.clustering_accuracy(clusters, class_N, size, known, fixed)
    free, _ = discovery.clustering_accuracy(clusters, class_N, size, known)
    right = discovery.named_classes(clusters, mapping) == class_N
    third_of = frequency_thirds(dict(enumerate(np.bincount(class_N).tolist())))
    thirds = {  # every class counts alike, unlike in the metrics of a run: rare ones are the point
        third: float(
            np.mean([right[class_N == c].mean() for c, t in third_of.items() if t == third])
        )
        for third in THIRDS
    }
    return {**accuracy, **thirds, "hungarian": free["all"], "crops": int(matched_N.sum())}


def diagnostics(pipeline: Pipeline) -> Result:
    """Does headness know how frequent a class is, and what temperature came of it?

    ``headness_crops`` and ``headness_classes`` are Spearman correlations with the number of
    unlabeled crops of the true class: over crops, and over classes by their mean headness.
    """
    matched_N, class_N, _ = truth_of_crops(pipeline)
    rows = found(pipeline, "headness").table("headness").read(["headness", "temperature"])
    assigned = found(pipeline, "assignments").table("assignments").read(["cluster_id"])
    headness = rows["headness"].to_numpy()[matched_N].astype(np.float64)
    heat = rows["temperature"].to_numpy()[matched_N].astype(np.float64)
    classes, inverse, sizes = np.unique(class_N, return_inverse=True, return_counts=True)
    per_class = np.bincount(inverse, headness) / sizes
    heat_per_class = np.bincount(inverse, heat) / sizes
    order = np.argsort(-sizes, kind="stable")
    share = np.bincount(assigned["cluster_id"].to_numpy()[matched_N].astype(np.int64)) / len(
        class_N
    )
    discover = pipeline.artifact("discover")  # proposers have a history as well
    assert discover is not None, "it has been made"
    history = discover.table("history").read()
    used = [row["value"] for row in history.to_pylist() if row["name"] == "temperature"]
    low, high = np.quantile(headness, (0.1, 0.9))
    return {
        "headness_crops": _rank_correlation(headness, sizes[inverse]),
        "headness_classes": _rank_correlation(per_class, sizes),
        "headness_p10": float(low),
        "headness_p90": float(high),
        "temperature_mean": float(np.mean(used)),
        **{
            f"temperature_{third}": float(heat_per_class[group].mean())
            for third, group in zip(THIRDS, np.array_split(order, 3), strict=True)
        },
        "cluster_entropy": float(-(share[share > 0] * np.log(share[share > 0])).sum()),
        "class_entropy": float(-(sizes / sizes.sum() * np.log(sizes / sizes.sum())).sum()),
        "num_classes": len(classes),
    }


def _rank_correlation(left_N: np.ndarray, right_N: np.ndarray) -> float:
    from scipy.stats import rankdata

    return float(np.corrcoef(rankdata(left_N), rankdata(right_N))[0, 1])


# ---------------------------------------------------------------- the segmenter


class Segmenter:
    """Rows of the table of RDL: the whole pipeline on digit scenes, from a trained proposer on."""

    def __init__(self, bench: Bench, images: ImageSet, changes: Sequence[str]) -> None:
        self._bench, self._path = bench, images.config
        self._overrides = [
            *images.overrides,
            f"stages.count.num_novel={images.num_novel}",
            *changes,
            "stages.evaluate.kmeans_on_pixels=false",
        ]

    def jobs(self, seeds: Sequence[int]) -> list[Job]:
        jobs = []
        for seed in seeds:
            for decay in DECAYS:
                changes = [f"stages.segment.reliability.decay={decay}", f"seed={seed}"]
                config = load_config(self._path, [*self._overrides, *changes])
                pipeline = self._bench.pipeline(config)
                run = partial(self._segment, pipeline)
                jobs.append(Job("segmenter", decay, seed, pipeline.nodes["evaluate"].key, run))
        return jobs

    def _segment(self, pipeline: Pipeline) -> Result:
        self._bench.make(pipeline, until="evaluate")
        metrics = found(pipeline, "metrics").json("metrics")
        bins = metrics["reliability_bins"]
        halves = [_share_right(bins[: len(bins) // 2]), _share_right(bins[len(bins) // 2 :])]
        return {
            **{part: metrics["detection"]["mask_ap"][part] for part in ("all", "known", "novel")},
            "ap50": metrics["detection"]["mask_ap50"]["all"],
            "pseudo_labels": metrics["discovery"]["accuracy"]["all"],
            "right_below": halves[0],
            "right_above": halves[1],
        }


def _share_right(bins: Sequence[Mapping[str, Any]]) -> float:
    counts = [entry["num_crops"] for entry in bins]
    right = sum(n * (entry["accuracy"] or 0.0) for n, entry in zip(counts, bins, strict=True))
    return right / max(sum(counts), 1)


# ---------------------------------------------------------------- tables

COLUMNS = {
    "all": "all", "known": "known", "novel": "novel",
    "head": "head", "mid": "mid", "tail": "tail", "hungarian": "all, one Hungarian",
}  # fmt: skip
DIAGNOSTICS = {
    "headness_crops": "headness ~ frequency, crops",
    "headness_classes": "classes",
    "temperature_mean": "mean temperature",
    "temperature_head": "head",
    "temperature_mid": "mid",
    "temperature_tail": "tail",
    "cluster_entropy": "cluster entropy",
    "class_entropy": "of classes",
}
AP_COLUMNS = {
    "all": "mask AP all", "known": "known", "novel": "novel", "ap50": "AP50 all",
    "pseudo_labels": "right pseudo-labels", "right_below": "less reliable half",
    "right_above": "more reliable half",
}  # fmt: skip


def table(
    rows: Mapping[str, list[Result]], columns: Mapping[str, str], scale: float, form: str
) -> str:
    """Markdown: mean ± standard deviation over seeds, a row per variant that has all columns."""
    lines = [
        "| | " + " | ".join(columns.values()) + " | seeds |",
        "|---|" + "---|" * (len(columns) + 1),
    ]
    for variant, results in rows.items():
        if not all(results[0].get(name) is not None for name in columns):
            continue
        cells = []
        for name in columns:
            values = [scale * result[name] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):{form}} ± {spread:{form}}")
        lines.append(f"| {variant} | " + " | ".join(cells) + f" | {len(results)} |")
    return "\n".join(lines)


def print_tables(results: Mapping[str, Mapping[str, list[Result]]]) -> None:
    for part, rows in results.items():
        if part == "segmenter":
            print(f"\n### {part}: RDL, %\n\n{table(rows, AP_COLUMNS, 100, '.1f')}")
        else:
            print(f"\n### {part}: accuracy on unlabeled crops, %\n")
            print(table(rows, COLUMNS, 100, ".1f"))
            print(f"\n{table(rows, DIAGNOSTICS, 1, '.3f')}")


# ---------------------------------------------------------------- running


def default_data() -> Path:
    return Path(os.environ.get("GCDIS_SHARED_DATA", ROOT.parent / "shared" / "data"))


def plan_jobs(args: argparse.Namespace, out: Path) -> list[Job]:
    bench, jobs = Bench(out / "artifacts"), []
    for part in args.only:
        folder = out / "sets" / part
        folder.mkdir(parents=True, exist_ok=True)
        steps = [f"stages.discover.gcdis.training.steps={args.steps or STEPS[part]}"]
        if part == "segmenter":
            images = ablation_data.digits(folder)
            jobs += Segmenter(bench, images, [*SMALL_SEGMENTER, *steps, *args.set]).jobs(args.seeds)
            continue
        if part == "digits":
            images, small = ablation_data.digits(folder), SMALL_DIGITS
        else:
            prepare, marker = PHOTOGRAPHS[part]
            needs = [args.data / marker, args.data / ablation_data.WEIGHTS]
            if missing := [path for path in needs if not path.is_file()]:
                print(f"{part} is skipped: no {missing[0]}; give --data", file=sys.stderr)
                continue
            images, small = prepare(folder, args.data), SMALL_PHOTOGRAPHS
        masks = folder / "masks.json"
        jobs += Discovery(bench, part, images, masks, [*small, *steps], args.set).jobs(args.seeds)
    jobs = [job for job in jobs if args.variants is None or job.variant in args.variants]
    return sorted(jobs, key=lambda job: job.seed)  # an early stop leaves whole tables


def run_jobs(jobs: Sequence[Job], out: Path) -> dict[str, dict[str, list[Result]]]:
    """Results by part and variant, each from its file if that is of the same artifact."""
    results: dict[str, dict[str, list[Result]]] = {}
    missing = [job for job in jobs if _stored(job, out) is None]
    began = time.monotonic()
    for number, job in enumerate(missing, start=1):
        before = time.monotonic()
        result = {"key": job.key, **job.run()}
        path = _path(job, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")
        left = (time.monotonic() - began) / number * (len(missing) - number)
        print(
            f"{number}/{len(missing)} {job.part}, {job.variant}, seed {job.seed}: all "
            f"{100 * result['all']:.1f} novel {100 * result['novel']:.1f}, "
            f"{time.monotonic() - before:.0f} s, {left / 60:.0f} min to go",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    for job in jobs:
        if result := _stored(job, out):
            results.setdefault(job.part, {}).setdefault(job.variant, []).append(result)
    return results


def _path(job: Job, out: Path) -> Path:
    return out / "results" / job.part / f"{job.variant.replace(', ', '-')}-{job.seed}.json"


def _stored(job: Job, out: Path) -> Result | None:
    path = _path(job, out)
    result = json.loads(path.read_text()) if path.is_file() else {}
    return result if result.get("key") == job.key else None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", help="rows to make; by default all")
    parser.add_argument("--steps", type=int, help=f"of discovery; by default {STEPS}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, default=default_data(), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.out.absolute()
    print_tables(run_jobs(plan_jobs(args, out), out))


if __name__ == "__main__":
    main()
