"""Discovery beside its baselines: mean and spread over seeds, on digits and on photographs.

    python benchmarks/discovery.py --data DIR                    all sets, three seeds
    python benchmarks/discovery.py --only caltech --seeds 0      some of it
    python benchmarks/discovery.py --backbone mobilenetv2_100    other embeddings of photographs

Crops are those of true masks, so that no proposer is between, and the number of classes is given.
Rows: k-means of the embeddings, its clusters named by the truth, as tables usually have it, and by
the labeled crops in them, as a user would have to; semi-supervised k-means; placing alone
(``linkage``); what is trained from there, on a body that is frozen, or whose last block learns
(``tuned``); and ``auto``, which of them withheld labels find best. On digits, whose encoder is from
scratch, gcdis is that of the quickstart. ``hold-out`` is the score on withheld labels by which
``auto`` chooses, in the run of the same seed.

A result is written as soon as it is there, under the key of its artifact: running again goes on
where it stopped. Needs no Ray.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import ablation_data
import numpy as np
import torch
from ablation import Bench, Job, Result, default_data, found, run_jobs, score, table
from ablation_data import ImageSet

from gcdis_ray.clustering.kmeans import kmeans
from gcdis_ray.clustering.partitions import name_clusters, semi_supervised_kmeans_clusters
from gcdis_ray.clustering.spaces import raw
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.run.pipeline import Pipeline, load_config

SETS = ("digits", "caltech", "coco")
COLUMNS = {
    "all": "all", "known": "known", "novel": "novel", "mean": "known and novel",
    "head": "head", "mid": "mid", "tail": "tail", "hungarian": "all, one matching",
}  # fmt: skip
HOLD_OUT = {"hold_out": "hold-out"}
LITE = "tf_efficientnet_lite0"
STARTS = 10
TRAINED = ("simgcd", "uno", "gcdis")
_ENCODER = {"simgcd": "encoder", "uno": "encoder", "gcdis": "model.encoder"}
BASELINES = ("k-means, named by the truth", "k-means, named by labels", "semi-supervised k-means")


def rows(part: str, tuned: bool) -> dict[str, list[str]]:
    """Row -> overrides of its discovery."""
    found = {name: [f"stages.discover.method={name}"] for name in ("linkage", *TRAINED, "auto")}
    if part == "digits":
        found["gcdis"] = []  # the quickstart's own
    elif tuned:
        found |= {
            f"{name}, tuned": [
                f"stages.discover.method={name}",
                f"stages.discover.{name}.{_ENCODER[name]}.trainable=1",
            ]
            for name in TRAINED
        }
    return found


class Discoveries:
    """Rows of one set's table. Crops and embeddings are made once, for all rows and seeds."""

    def __init__(self, bench: Bench, part: str, images: ImageSet, masks: Path) -> None:
        self._bench, self._part, self._path = bench, part, images.config
        self._overrides = [
            *images.overrides,
            "stages.propose.source=external",
            f"stages.propose.external={{results: {masks}}}",
            "stages.propose.min_score=0",
            "stages.propose.max_per_image=1000",
            "stages.crop.max_proposals_per_image=1000",
            f"stages.count.num_novel={images.num_novel}",
        ]

    def jobs(self, seeds: Sequence[int], tuned: bool, last: Sequence[str]) -> list[Job]:
        jobs = []
        for seed in seeds:
            for name in BASELINES:
                pipeline = self._bench.pipeline(load_config(self._path, self._overrides))
                run = partial(self._cluster, pipeline, seed, name)
                jobs.append(Job(self._part, name, seed, pipeline.nodes["count"].key, run))
            for name, changes in rows(self._part, tuned).items():
                clean = [] if name == "gcdis" and not changes else ["stages.discover={}"]
                overrides = [*self._overrides, *clean, *changes, *last]
                config = load_config(self._path, overrides)
                pipeline = self._bench.pipeline(config, reseed=("discover", seed))
                run = partial(self._discover, pipeline)
                jobs.append(Job(self._part, name, seed, pipeline.nodes["discover"].key, run))
        return jobs

    def _cluster(self, pipeline: Pipeline, seed: int, name: str) -> Result:
        self._bench.make(pipeline, until="count")
        table = found(pipeline, "embeddings").table("embeddings").read(["class_index", "embedding"])
        vectors_ND = torch.tensor(matrix(table["embedding"]))
        points_ND = raw(vectors_ND).place(vectors_ND)
        labels_N = torch.tensor(table["class_index"].to_numpy()).long()
        num_known = int(labels_N.max()) + 1
        num_classes = found(pipeline, "class_count").json("class_count")["num_classes"]
        if name == "semi-supervised k-means":
            clusters = semi_supervised_kmeans_clusters(
                points_ND.double().numpy(), labels_N.numpy(), num_known, num_classes, seed,
                restarts=STARTS,
            )  # fmt: skip
            return _with_mean(score(pipeline, clusters, True))
        generator = torch.Generator().manual_seed(seed)
        clusters = kmeans(points_ND, num_classes, generator, n_init=STARTS)
        if name == "k-means, named by the truth":
            return _with_mean(score(pipeline, clusters.cluster_N.numpy(), False))
        centres_KD = torch.nn.functional.normalize(clusters.centers_KD, dim=1)
        output_K = name_clusters(points_ND, labels_N, centres_KD, num_known)
        return _with_mean(score(pipeline, output_K[clusters.cluster_N].numpy(), True))

    def _discover(self, pipeline: Pipeline) -> Result:
        self._bench.make(pipeline, until="discover")
        assigned = found(pipeline, "assignments").table("assignments").read(["cluster_id"])
        result = _with_mean(score(pipeline, assigned["cluster_id"].to_numpy(), True))
        discover = pipeline.artifact("discover")
        assert discover is not None, "it has been made"
        if discover.has("candidates"):
            told = discover.json("candidates")["candidates"]
            result["hold_out"] = {row["method"]: row["score"] for row in told}
            result["chosen"] = next(row["method"] for row in told if row["chosen"])
        return result


def _with_mean(result: Result) -> Result:
    parts = [result[part] for part in ("known", "novel") if result[part] is not None]
    return result | {"mean": float(np.mean(parts))}


_HELD = {
    "k-means, named by labels": "k-means",
    "semi-supervised k-means": "semi-supervised k-means",
    **{name: name for name in ("linkage", *TRAINED)},
}


def with_hold_out(results: Mapping[str, list[Result]]) -> dict[str, list[Result]]:
    """The same with what ``auto`` of the same seed says of each row."""
    told = [result.get("hold_out") for result in results.get("auto", [])]
    filled: dict[str, list[Result]] = {}
    for name, seeds in results.items():
        filled[name] = []
        for n, result in enumerate(seeds):
            scores = told[n] if n < len(told) else None
            held = result["chosen"] if name == "auto" and "chosen" in result else _HELD.get(name)
            value = scores.get(held) if scores and held else None
            filled[name].append({**result, "hold_out": value})
    return filled


def print_tables(results: Mapping[str, Mapping[str, list[Result]]]) -> None:
    for part, variants in results.items():
        print(f"\n### {part}: accuracy on unlabeled crops, %\n")
        rows = with_hold_out(variants)
        told = all(r["hold_out"] is not None for r in rows.get("auto", [])) and "auto" in rows
        print(table(rows, COLUMNS, 100, ".1f"))
        if told:
            held = {
                name: list_
                for name, list_ in rows.items()
                if all(result["hold_out"] is not None for result in list_)
            }
            print(f"\nscore on withheld labels, %\n\n{table(held, HOLD_OUT, 100, '.1f')}")
        chosen = [result.get("chosen") for result in variants.get("auto", [])]
        if chosen:
            print(f"\nauto chose {', '.join(map(str, chosen))}")


def plan_jobs(args: argparse.Namespace, out: Path) -> list[Job]:
    bench, jobs = Bench(out / "artifacts"), []
    for part in args.only:
        folder = out / "sets" / part
        folder.mkdir(parents=True, exist_ok=True)
        if part == "digits":
            images = ablation_data.digits(folder)
        else:
            prepare = {"caltech": ablation_data.caltech, "coco": ablation_data.coco}[part]
            images = prepare(folder, args.data, args.backbone)
        discoveries = Discoveries(bench, part, images, folder / "masks.json")
        jobs += discoveries.jobs(args.seeds, args.tuned, args.set)
    jobs = [job for job in jobs if args.rows is None or job.variant in args.rows]
    return sorted(jobs, key=lambda job: job.seed)  # an early stop leaves whole tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="rows to make; by default all")
    parser.add_argument("--tuned", action="store_true", help="rows whose last block learns, too")
    parser.add_argument("--backbone", default=LITE, choices=(LITE, "mobilenetv2_100"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data", type=Path, default=default_data(), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/discovery"), metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only != ["digits"] and not (args.data / "coco-subset").is_dir():
        sys.exit(f"no photographs at {args.data}; give --data, or --only digits")
    out = args.out.absolute() / args.backbone
    print(f"embeddings of photographs: {args.backbone}")
    print_tables(run_jobs(plan_jobs(args, out), out))


if __name__ == "__main__":
    main()
