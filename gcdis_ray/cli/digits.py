"""``gcdis digits``."""

from __future__ import annotations

import argparse
from pathlib import Path

from gcdis_ray.cli.telling import json_argument, print_json
from gcdis_ray.errors import ConfigError

HELP = "write the handwritten-digit scenes of the quickstart"
EXAMPLE = "gcdis digits runs/digits-scenes"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="where to write a COCO folder")
    parser.add_argument("--seed", type=int, default=0, help="0 or more")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.data.samples.digits import write_scenes
    from gcdis_ray.run.progress import WorkLine

    if args.seed < 0:
        raise ConfigError("must not be negative", where="--seed", fix="use 0 or more")
    with WorkLine("digits") as line:
        write_scenes(Path(args.folder), seed=args.seed, show=line)
    written = str(Path(args.folder).absolute())
    if args.json:
        print_json({"folder": written})
    else:
        print(written)
    return 0
