"""``gcdis gc``."""

from __future__ import annotations

import argparse

from gcdis_ray.cli.configs import config_arguments, open_pipeline
from gcdis_ray.cli.telling import json_argument, print_json
from gcdis_ray.errors import ConfigError

HELP = "remove files of unfinished attempts and finished trainings"
EXAMPLE = "gcdis gc mine.yaml --dry-run"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    parser.add_argument("--older-than-h", type=float, default=24.0, metavar="H", help="default 24")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.run.garbage import collect
    from gcdis_ray.words import size

    pipeline = open_pipeline(args)
    if args.older_than_h < 0:
        raise ConfigError("must not be negative", where="--older-than-h", fix="give hours, or 0")
    stages = dict.fromkeys(node.stage.ID for node in pipeline.nodes.values())
    found = collect(pipeline.storage, stages, args.older_than_h, delete=not args.dry_run)
    if args.json:
        folders = [{"folder": folder, "bytes": num_bytes} for folder, num_bytes in found]
        print_json({"removed": not args.dry_run, "folders": folders})
        return 0
    freed = 0
    for folder, num_bytes in found:
        freed += num_bytes
        print(f"{'would remove' if args.dry_run else 'removed'} {folder}  {size(num_bytes)}")
    print(f"{size(freed)} {'to free' if args.dry_run else 'freed'}")
    return 0
