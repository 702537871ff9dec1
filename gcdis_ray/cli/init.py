"""``gcdis init``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gcdis_ray.cli.telling import json_argument, print_json

HELP = "look at a folder of images, write the config that fits it"
EXAMPLE = "gcdis init /data/mine --out mine.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="folder, or s3://bucket/prefix")
    parser.add_argument("--out", metavar="FILE", help="default: <name of the folder>.yaml, here")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.run.progress import WorkLine
    from gcdis_ray.starting.start import start

    with WorkLine("init") as line:
        found = start(args.folder, show=line)
    path = Path(args.out or f"{found.name}.yaml")
    found.write(path, args.force)
    if args.json:
        print_json({"name": found.name, "config": str(path.absolute()), "found": found.found})
        return 0
    print("\n".join(found.found))
    print(f"wrote {path}; next: gcdis plan {path}")
    return 0
