"""Over-provision, then prune: digits with more novel outputs than novel classes.

    python benchmarks/prune.py                          1, 1.5, 2 and 3 outputs per novel class
    python benchmarks/prune.py --factors 2 --seeds 0 1 2
    python benchmarks/prune.py --prune merge_cosine=0.3 --prune min_members=15

Discovery on crops of true masks of the long-tailed digit scenes, in the small settings of
``ablation.py``. Every training is scored twice, as it is and pruned. Trainings are kept by key, so
other thresholds need no new ones. Needs no Ray.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ablation_data
import numpy as np
import pyarrow as pa
import torch
from ablation import SMALL_DIGITS, STEPS, Bench, found, score

from gcdis_ray.config import RunConfig, apply_overrides
from gcdis_ray.methods.assigning import AssignCrops
from gcdis_ray.methods.pruning import CompareSnapshots, prune_outputs
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.run.pipeline import Pipeline, load_config

COLUMNS = {
    "clusters": ("clusters", 1, ".1f"),
    "all": ("all, %", 100, ".1f"),
    "known": ("known, %", 100, ".1f"),
    "novel": ("novel, %", 100, ".1f"),
}
Result = dict[str, Any]


def config_of(folder: Path, factor: float, steps: int, changes: Sequence[str]) -> RunConfig:
    images = ablation_data.digits(folder)
    return load_config(
        images.config,
        [
            *images.overrides,
            "stages.propose.source=external",
            f"stages.propose.external={{results: {folder / 'masks.json'}}}",
            "stages.propose.min_score=0",
            "stages.propose.max_per_image=1000",
            "stages.crop.max_proposals_per_image=1000",
            f"stages.count.num_novel={images.num_novel}",
            *SMALL_DIGITS,
            f"stages.discover.gcdis.training.steps={steps}",
            f"stages.discover.prune.over_provision={factor}",
            *changes,
        ],
    )


def pruned_clusters(pipeline: Pipeline, config: PruneConfig) -> tuple[np.ndarray, dict[str, Any]]:
    """Clusters of all crops once the outputs of a trained model are pruned, and the report."""
    crops = found(pipeline, "crops").table("crops")
    num_known = len(found(pipeline, "classes").json("classes"))
    stored = StoredMethod.read(found(pipeline, "method"))
    compare = CompareSnapshots(stored).open("cpu")
    parts = [compare(n, shard)["agreement"] for n, shard in enumerate(crops.iter_shards())]
    prototypes_KF = stored.open("cpu").prototypes_KF()
    pruned = prune_outputs(prototypes_KF, num_known, pa.concat_tables(parts), config)
    assign = AssignCrops(stored.grouped(pruned.groups), top_k=1).open("cpu")
    told = [assign(n, shard)["assignments"] for n, shard in enumerate(crops.iter_shards())]
    return pa.concat_tables(told)["cluster_id"].to_numpy(), pruned.report


def measure(
    bench: Bench, config: RunConfig, rules: PruneConfig, seed: int
) -> tuple[Result, Result]:
    """One training, as it is and pruned."""
    pipeline = bench.make(bench.pipeline(config, reseed=("discover", seed)), until="discover")
    cluster_N = found(pipeline, "assignments").table("assignments").read(["cluster_id"])
    cluster_N = cluster_N["cluster_id"]
    pruned_N, report = pruned_clusters(pipeline, rules)
    results = []
    for clusters_N, size in (
        (cluster_N.to_numpy(), report["num_outputs"]),
        (pruned_N, report["num_clusters"]),
    ):
        results.append({"clusters": size, **score(pipeline, clusters_N, True)})
    dropped = [row for row in report["outputs"] if row["dropped_for"]]
    merged = [pair for pair in report["merges"] if pair["merged"]]
    print(
        f"    dropped {[(r['output'], r['members'], r['dropped_for']) for r in dropped]}, "
        f"merged {[pair['outputs'] for pair in merged]}, "
        f"kept apart {len(report['merges']) - len(merged)}",
        file=sys.stderr,
    )
    return results[0], results[1]


def print_table(rows: Mapping[str, list[Result]], truth: int) -> None:
    print(f"\n### digits: {truth} true classes, clusters and accuracy on unlabeled crops\n")
    print(
        "| outputs per novel class | " + " | ".join(c[0] for c in COLUMNS.values()) + " | seeds |"
    )
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    for name, results in rows.items():
        cells = []
        for column, (_, scale, form) in COLUMNS.items():
            values = [scale * result[column] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):{form}} ± {spread:{form}}")
        print(f"| {name} | " + " | ".join(cells) + f" | {len(results)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--factors", type=float, nargs="+", default=[1, 1.5, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=STEPS["digits"], help="of discovery")
    parser.add_argument(
        "--prune", action="append", default=[], metavar="KEY=VALUE", help="a threshold"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/prune"), metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rules = PruneConfig.model_validate(apply_overrides({}, args.prune))
    out = args.out.absolute()
    folder = out / "sets" / "digits"
    folder.mkdir(parents=True, exist_ok=True)
    bench, rows, truth = Bench(out / "artifacts"), dict[str, list[Result]](), 0
    for seed in args.seeds:
        for factor in args.factors:
            before = time.monotonic()
            config = config_of(folder, factor, args.steps, args.set)
            truth = config.stages.count.num_novel + len(config.stages.ingest.known_classes)
            plain, pruned = measure(bench, config, rules, seed)
            rows.setdefault(f"{factor:g}", []).append(plain)
            rows.setdefault(f"{factor:g}, pruned", []).append(pruned)
            print(
                f"seed {seed}, {factor:g} outputs per novel class: novel "
                f"{100 * plain['novel']:.1f} in {plain['clusters']}, pruned "
                f"{100 * pruned['novel']:.1f} in {pruned['clusters']}, "
                f"{time.monotonic() - before:.0f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
    print_table(rows, truth)


if __name__ == "__main__":
    main()
