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
    from gcdis_ray.run.progress import WorkLine
    from gcdis_ray.words import size

    pipeline = open_pipeline(args)
    if args.older_than_h < 0:
        raise ConfigError("must not be negative", where="--older-than-h", fix="give hours, or 0")
    stages = dict.fromkeys(node.stage.ID for node in pipeline.nodes.values())
    delete, folders = not args.dry_run, []
    with WorkLine("gc") as line:
        for folder, num_bytes in collect(
            pipeline.storage, stages, args.older_than_h, delete=delete, show=line
        ):
            folders.append({"folder": folder, "bytes": num_bytes})
            if not args.json:
                line.clear()
                print(f"{'removed' if delete else 'would remove'} {folder}  {size(num_bytes)}")
    if args.json:
        print_json({"removed": delete, "folders": folders})
    else:
        freed = sum(folder["bytes"] for folder in folders)
        print(f"{size(freed)} {'freed' if delete else 'to free'}")
    return 0
