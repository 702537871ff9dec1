"""``gcdis bundle``."""

from __future__ import annotations

import argparse
import sys

from gcdis_ray.cli.telling import json_argument, print_json

HELP = "put all that a trained segmenter needs into one folder"
EXAMPLE = "gcdis bundle runs/quickstart bundle/"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="the storage of a run (folder or s3://), or its config"
    )
    parser.add_argument("folder", metavar="FOLDER", help="new or empty folder, or s3://")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value of the config",
    )
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.applying.bundle import write_bundle
    from gcdis_ray.applying.opening import open_trained
    from gcdis_ray.words import counted, size

    trained = open_trained(args.run, args.set)
    if not write_bundle(trained, args.folder):
        print("Nothing to do: the bundle is there.", file=sys.stderr)
    if args.json:
        print_json({"folder": args.folder, "bytes": trained.num_bytes, "sha256": trained.sha256})
        return 0
    classes = counted(len(trained.table), "class", "classes")
    print(f"{args.folder}: {trained.name}, {classes}, {size(trained.num_bytes)}")
    return 0
