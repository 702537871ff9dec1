"""``gcdis report``."""

from __future__ import annotations

import argparse

from gcdis_ray.cli.configs import config_arguments, open_pipeline
from gcdis_ray.cli.telling import json_argument, print_json
from gcdis_ray.report.projection import PROJECTIONS

HELP = "write the HTML report of what exists so far"
EXAMPLE = "gcdis report mine.yaml --output mine.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--output", metavar="FILE", help="default: in the run's storage")
    parser.add_argument(
        "--map",
        choices=PROJECTIONS,
        default="pca",
        help="how crops are laid out on the map (default: %(default)s; umap: extra umap)",
    )
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.run.progress import WorkLine
    from gcdis_ray.run.report import write_run_report

    pipeline = open_pipeline(args)
    with WorkLine("report") as line:
        report = write_run_report(pipeline, args.output, projection=args.map, show=line)
    if args.json:
        print_json({"report": report})
    else:
        print(report)
    return 0
