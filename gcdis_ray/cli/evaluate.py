"""``gcdis evaluate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gcdis_ray.cli.configs import config_arguments, open_pipeline
from gcdis_ray.cli.run import run_stages
from gcdis_ray.cli.telling import json_argument, metrics_of, print_json, set_aside
from gcdis_ray.errors import ConfigError

HELP = "score a run, or COCO results against annotations"
EXAMPLE = """\
gcdis evaluate mine.yaml
gcdis evaluate --ground-truth instances.json --results results.json --known-classes cat dog"""


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser, optional=True)
    parser.add_argument("--ground-truth", metavar="FILE", help="COCO or LVIS annotations")
    parser.add_argument("--results", metavar="FILE", help="COCO results")
    parser.add_argument("--known-classes", nargs="+", metavar="CLASS", help="names or category ids")
    parser.add_argument(
        "--areas",
        choices=("mask", "box"),
        help="whose areas say which detections are small, medium and large, of results that have "
        "both (default: the mask's for mask AP, the box's for box AP; pycocotools: box)",
    )
    parser.add_argument(
        "--mapping-source",
        choices=("split_val", "detections", "gt_crops", "train_gt"),
        help="the results' category ids are names of clusters: what they are mapped by",
    )
    parser.add_argument(
        "--mapping-scope",
        choices=("novel_only", "all"),
        help="novel_only (default): ids of known classes stand for themselves; all: every id is "
        "mapped",
    )
    parser.add_argument(
        "--mapping-drop",
        choices=("before_topk", "after_topk"),
        help="when ids that stand for no class leave: before or after (default) the cut to the "
        "best of an image",
    )
    parser.add_argument(
        "--max-per-image",
        type=int,
        metavar="N",
        help="with a mapping: detections scored per image (default 100, by LVIS's rules 300)",
    )
    parser.add_argument(
        "--images",
        metavar="FILE[:KEY]",
        help="score only the image ids in this JSON list, or list under KEY, as in splits.json:val",
    )
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    rule = _mapping(args)
    if args.ground_truth and args.results and not args.config:
        return _of_files(args, rule)
    of_files = (args.ground_truth, args.results, args.known_classes, args.images, args.areas)
    if not args.config or any((*of_files, *rule.values(), args.max_per_image)):
        raise ConfigError(
            "give either a config alone, or both --ground-truth and --results",
            where="gcdis evaluate",
            fix="gcdis evaluate --ground-truth instances.json --results results.json",
        )
    until = open_pipeline(args).giver("metrics")
    if until is None:
        raise ConfigError("no stage of the recipe gives metrics", where="gcdis evaluate")
    with set_aside(args.json):
        pipeline, _ = run_stages(args, None, until)
    if args.json:
        print_json(metrics_of(pipeline))
    return 0


def _of_files(args: argparse.Namespace, rule: dict[str, str]) -> int:
    from gcdis_ray.evaluation.bare_files import score_files
    from gcdis_ray.metrics.files.file_scores import format_scores
    from gcdis_ray.run.progress import WorkLine

    with WorkLine("evaluate") as line:
        scores = score_files(
            Path(args.ground_truth),
            Path(args.results),
            known_classes=args.known_classes,
            images=args.images,
            mapping=rule,
            max_per_image=args.max_per_image,
            areas=args.areas,
            show=line,
        )
    if args.json:
        print_json(scores)
    else:
        print(format_scores(scores))
    return 0


def _mapping(args: argparse.Namespace) -> dict[str, str]:
    """What is given of the mapping."""
    parts = {name: getattr(args, f"mapping_{name}") for name in ("source", "scope", "drop")}
    return {name: value for name, value in parts.items() if value is not None}
