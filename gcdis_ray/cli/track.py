"""``gcdis track``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gcdis_ray.cli.configs import config_arguments, open_pipeline
from gcdis_ray.cli.telling import json_argument, print_json

HELP = "write training curves for TensorBoard (extra: track)"
EXAMPLE = "gcdis track mine.yaml --output curves"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--output", metavar="FOLDER", required=True)
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.report.tracking import write_curves

    written = write_curves(open_pipeline(args).artifacts(), Path(args.output))
    if args.json:
        print_json({"folder": str(Path(args.output).absolute()), "values": written})
    else:
        print(f"{written} values in {args.output}")
    return 0
