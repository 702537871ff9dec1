"""How well is the unknown number of classes estimated? Every estimator, on sets of known truth.

    python benchmarks/class_count.py                                  everything
    python benchmarks/class_count.py --only blobs --scenes 20 --spaces half_whitened
    python benchmarks/class_count.py --only blobs --classes 1200 1200 --scenes 1  # LVIS
    python benchmarks/class_count.py --only digits caltech coco --data DIR

All estimators see the same draws in the same space, and those that are combined are the ones that
stand beside the combination.

``blobs``: random scenes of 2 to 200 classes, of about equal size or long-tailed (Zipf), of which 30
to 70 % are known, half of their crops labeled. A class is a Gaussian that shares some of its shape
with the others; scenes differ in dimensions and in how far classes overlap, from not at all to
half of all crops nearer to another class's center. ``--seed`` names the set of scenes: 0 is the
one that constants were chosen on, 1, the default, is for reporting.

``digits``, ``caltech``, ``coco``: frozen embeddings of crops of true masks, as ablation.py makes
them; photographs are skipped where --data has none. Prints Markdown. Needs no Ray.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ablation
import ablation_data
import numpy as np
import torch

from gcdis_ray.clustering.class_count.judged_space import POWERS
from gcdis_ray.clustering.class_count.points import prepare_draws
from gcdis_ray.clustering.class_count.trials import run_all
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.stages import count

SPACES = ("chosen", *POWERS)
PARTS = ("blobs", "digits", "caltech", "coco")
CLASSES = (2, 200)  # of a scene, at least and at most
SEPARATION = (6.0, 8.0, 11.0)  # mean distance of two centers, in standard deviations of a class


class Case(NamedTuple):
    """Embeddings (N, D) float32 of length 1, labels (N,) int64 or -1, the true number."""

    part: str
    embeddings_ND: np.ndarray
    labels_N: np.ndarray
    truth: int
    overlap: float = 0.0  # share of crops nearer to another class's center than to their own


class Outcome(NamedTuple):
    part: str
    space: str
    estimator: str
    truth: int
    estimate: int
    low: int
    high: int
    seconds: float
    num_known: int
    num_crops: int
    overlap: float


def blobs(seed: int, number: int, long_tailed: bool, classes: tuple[int, int] = CLASSES) -> Case:
    """One random scene."""
    rng = np.random.default_rng([seed, number, long_tailed])
    least, most = classes
    num_classes = round(least * (most / least) ** rng.random())
    dims, core = int(rng.choice([64, 96, 128])), int(rng.choice([8, 16, 32]))
    spread = 2**0.5 / SEPARATION[number % len(SEPARATION)]
    if long_tailed:
        weight = 1 / np.arange(1, num_classes + 1)
        size = np.maximum(5, np.minimum(400, 8000 / weight.sum()) * weight).astype(int)
    else:
        size = np.full(num_classes, rng.integers(20, 60))
    class_N = np.repeat(np.arange(num_classes), rng.permutation(size))
    turn, tilt = (np.linalg.qr(rng.normal(size=(dims, dims)))[0] for _ in range(2))
    center = rng.normal(size=(num_classes, core)) / core**0.5 @ turn[:core]
    shape = np.exp(0.4 * rng.normal(size=dims))  # common to all classes
    shape = shape / (shape**2).mean() ** 0.5 * np.exp(0.25 * rng.normal(size=(num_classes, dims)))
    shape *= np.exp(0.2 * rng.normal(size=(num_classes, 1)))
    points = (
        center[class_N] + spread * (rng.normal(size=(len(class_N), dims)) * shape[class_N]) @ tilt
    )
    nearest = (points @ center.T - (center**2).sum(1) / 2).argmax(1)
    offset = rng.normal(size=dims)
    points += 0.5 * offset / np.linalg.norm(offset)  # embeddings have a common part
    num_known = int(np.clip(round(rng.uniform(0.3, 0.7) * num_classes), 1, num_classes - 1))
    index_of = np.full(num_classes, -1)
    index_of[rng.permutation(num_classes)[:num_known]] = np.arange(num_known)
    labels = np.where(rng.random(len(class_N)) < 0.5, index_of[class_N], -1)
    first = np.unique(class_N, return_index=True)[1]
    for start in (first, first + 1):  # two labels at least
        labels[start] = index_of[class_N[start]]
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    part = "blobs, long-tailed" if long_tailed else "blobs, balanced"
    overlap = float((nearest != class_N).mean())
    return Case(part, points.astype(np.float32), labels, num_classes, overlap)


def crops(part: str, folder: Path, data: Path, backbone: str) -> Case:
    """Frozen embeddings of the crops of true masks."""
    folder.mkdir(parents=True, exist_ok=True)
    prepare_set = partial(getattr(ablation_data, part), folder)
    images = prepare_set() if part == "digits" else prepare_set(data, backbone)
    changes = [
        *images.overrides,
        "stages.propose.source=external",
        f"stages.propose.external={{results: {folder / 'masks.json'}}}",
        "stages.propose.min_score=0",
        "stages.propose.max_per_image=1000",
        "stages.crop.max_proposals_per_image=1000",
    ]
    config = load_config(images.config, changes)
    bench = ablation.Bench(folder.parent / "artifacts")
    pipeline = bench.make(bench.pipeline(config), until="embed")
    rows = ablation.found(pipeline, "embeddings").table("embeddings")
    rows = rows.read(["class_index", "embedding"])
    labels = rows["class_index"].to_numpy().astype(np.int64)
    _, classes, known = ablation.truth_of_crops(pipeline)
    truth = len({*classes.tolist(), *(known[c] for c in np.unique(labels[labels >= 0]))})
    return Case(part, matrix(rows["embedding"]), labels, truth)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    for part in args.only:
        if part == "blobs":
            for number in range(args.scenes):
                for long_tailed in (False, True):
                    yield blobs(args.seed, number, long_tailed, args.classes)
        elif part == "digits" or (args.data / ablation.PHOTOGRAPHS[part][1]).is_file():
            yield crops(part, args.out.absolute() / part, args.data, args.backbone)
        else:
            print(f"{part} is skipped: no photographs in {args.data}; give --data", file=sys.stderr)


def run(case: Case, config: count.Config, seed: int) -> Iterator[Outcome]:
    """Every estimator of the config on one case."""
    points, labels = torch.tensor(case.embeddings_ND), torch.tensor(case.labels_N)
    sizes = torch.bincount(labels + 1).tolist()
    began = time.perf_counter()
    how = count.settings(config)
    space = config.space or "chosen"
    seeds = [seed * 1000 + number for number in range(config.num_seeds)]
    draws, _ = prepare_draws(lambda rows: points[rows], labels, how, seeds)
    drawn = time.perf_counter() - began
    trials, seconds = {}, {}
    for method, estimator in count.estimators(config, sizes, seed).items():
        began = time.perf_counter()
        trials[method] = run_all(
            estimator, lambda jobs, one=estimator: [one.run(job, draws[job.draw]) for job in jobs]
        )
        seconds[method] = time.perf_counter() - began
    seconds["combined"] = drawn + sum(seconds[method] for method in count.COMBINED)
    for method, found in count.class_counts(config, sizes, seed, trials).items():
        yield Outcome(
            case.part, space, method, case.truth, found.num_classes, *found.interval,
            seconds[method], len(sizes) - 1, len(labels), case.overlap,
        )  # fmt: skip


def print_tables(outcomes: Sequence[Outcome]) -> None:
    for part in dict.fromkeys(outcome.part for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.part == part]
        if part.startswith("blobs"):
            _print_blobs(part, mine)
        else:
            _print_set(part, mine)


def _print_blobs(part: str, outcomes: Sequence[Outcome]) -> None:
    head = "median error | mean error | truth in interval | high/low | s | scenes |"
    print(f"\n### {part}\n\n| space | estimator | {head}\n|---|---|---|---|---|---|---|---|")
    rows = dict.fromkeys((outcome.space, outcome.estimator) for outcome in outcomes)
    of = {row: [o for o in outcomes if (o.space, o.estimator) == row] for row in rows}
    for (space, name), mine in of.items():
        print(f"| {space} | {name} | {_figures(mine)} | {len(mine)} |")
    for (space, name), mine in of.items():
        if name != "combined":
            continue
        print(f"\n{part}, {name}, {space}:\n\n| | {head}\n|---|---|---|---|---|---|---|")
        groups = {
            "2 to 9 classes": [o for o in mine if o.truth < 10],
            "10 to 49": [o for o in mine if 10 <= o.truth < 50],
            "50 to 200": [o for o in mine if o.truth >= 50],
            "under 3 % of crops overlap": [o for o in mine if o.overlap < 0.03],
            "3 to 15 %": [o for o in mine if 0.03 <= o.overlap < 0.15],
            "over 15 %": [o for o in mine if o.overlap >= 0.15],
        }
        for label, group in groups.items():
            if group:
                print(f"| {label} | {_figures(group)} | {len(group)} |")


def _figures(outcomes: Sequence[Outcome]) -> str:
    error = [abs(o.estimate - o.truth) / o.truth for o in outcomes]
    inside = np.mean([o.low <= o.truth <= o.high for o in outcomes])
    width = np.median([o.high / o.low for o in outcomes])
    seconds = np.median([o.seconds for o in outcomes])
    errors = f"{np.median(error):.1%} | {np.mean(error):.1%}"
    return f"{errors} | {inside:.0%} | {width:.2f} | {seconds:.1f}"


def _print_set(part: str, outcomes: Sequence[Outcome]) -> None:
    one = outcomes[0]
    print(f"\n### {part}: {one.truth} classes, {one.num_known} known, {one.num_crops} crops\n")
    print("| space | estimator | estimate | interval | s |\n|---|---|---|---|---|")
    for o in outcomes:
        numbers = f"{o.estimate} | {o.low} to {o.high} | {o.seconds:.1f}"
        print(f"| {o.space} | {o.estimator} | {numbers} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--spaces", nargs="+", choices=SPACES, default=list(SPACES))
    parser.add_argument(
        "--also", nargs="*", choices=("density",), default=["density"], help="besides the combined"
    )
    parser.add_argument("--scenes", type=int, default=30, help="of each kind of blobs")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes")
    parser.add_argument(
        "--classes", type=int, nargs=2, default=CLASSES, metavar=("LEAST", "MOST"), help="of blobs"
    )
    parser.add_argument("--data", type=Path, default=ablation.default_data(), metavar="DIR")
    parser.add_argument(
        "--backbone", default=ablation_data.MOBILENET, help="a timm model, for photographs"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/class_count"), metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    with (args.out / "outcomes.jsonl").open("a") as log:
        for case in cases(args):
            for space in args.spaces:
                chosen = None if space == "chosen" else space
                config = count.Config.model_validate({"space": chosen, "also": args.also})
                for o in run(case, config, seed=0):
                    outcomes.append(o)
                    log.write(json.dumps(o._asdict()) + "\n")
                    log.flush()
                    print(
                        f"{o.part}, {o.space}, {o.estimator}: {o.estimate} ({o.low} to {o.high}) "
                        f"of {o.truth}, overlap {o.overlap:.0%}, {o.seconds:.1f} s",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
    print_tables(outcomes)


if __name__ == "__main__":
    main()
