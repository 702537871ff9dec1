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
    text = "N scenes that come later: unlabeled, and none of the quickstart's"
    parser.add_argument("--only-unlabeled", type=int, metavar="N", help=text)
    text = "with --only-unlabeled: a class that the quickstart has not, one of A to Z"
    parser.add_argument("--letter", metavar="L", help=text)
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.data.samples.digits import write_new_scenes, write_scenes
    from gcdis_ray.run.progress import WorkLine

    folder, num = Path(args.folder), args.only_unlabeled
    if args.seed < 0:
        raise ConfigError("must not be negative", where="--seed", fix="use 0 or more")
    if num is not None and num < 1:
        raise ConfigError("must be above 0", where="--only-unlabeled", fix="use 1 or more")
    if num is None and args.letter is not None:
        raise ConfigError(
            "the quickstart's own scenes have no letter", where="--letter", fix="--only-unlabeled N"
        )
    with WorkLine("digits") as line:
        if num is None:
            write_scenes(folder, seed=args.seed, show=line)
        else:
            write_new_scenes(folder, num_scenes=num, letter=args.letter, seed=args.seed, show=line)
    written = str(folder.absolute())
    if args.json:
        print_json({"folder": written})
    else:
        print(written)
    return 0
