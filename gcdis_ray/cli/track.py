"""``gcdis track``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gcdis_ray.cli.configs import config_arguments, open_pipeline

HELP = "write training curves for TensorBoard (extra: track)"
EXAMPLE = "gcdis track mine.yaml --output curves"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--output", metavar="FOLDER", required=True)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.report.tracking import write_curves

    artifacts = open_pipeline(args).artifacts()
    print(f"{write_curves(artifacts, Path(args.output))} values in {args.output}")
    return 0
