"""``gcdis predict``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gcdis_ray.cli.telling import json_argument, print_json, set_aside
from gcdis_ray.errors import ConfigError

HELP = "apply a trained segmenter to new images (resumes by itself)"
EXAMPLE = (
    "gcdis predict runs/quickstart --images new/ --out runs/new --pictures 20\n"
    "gcdis predict bundle/ --images s3://bucket/new --out s3://bucket/found --runtime ray"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", help="a bundle, the storage of a run (folder or s3://), or its config"
    )
    parser.add_argument(
        "--images",
        required=True,
        metavar="FOLDER",
        help="folder or s3://bucket/prefix of images, or a .txt file with a name a line",
    )
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="for results: a folder of its own, or s3://"
    )
    parser.add_argument(
        "--pictures",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="draw masks and names into N images, spread evenly; without N into all",
    )
    parser.add_argument(
        "--display-score",
        type=float,
        metavar="X",
        help="draw objects from this score on (default: so that about eight an image are); "
        "results do not change",
    )
    parser.add_argument(
        "--min-score", type=float, metavar="X", help="leave out objects below it (as the run had)"
    )
    parser.add_argument(
        "--max-per-image", type=int, metavar="N", help="the best of an image (as the run had)"
    )
    parser.add_argument("--runtime", choices=("ray", "local"), help="default: ray")
    parser.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster; default: Ray here")
    parser.add_argument("--data-workers", type=int, metavar="N", help="actors that predict")
    parser.add_argument(
        "--gpus-per-data-worker",
        type=float,
        metavar="X",
        help="share of a GPU that each holds (default: the GPU of this machine, if there is one)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other value: compute.threads=2, stages.images.exif=ignore",
    )
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.applying.opening import open_trained
    from gcdis_ray.applying.pictures import PictureRequest
    from gcdis_ray.applying.predictions import Request, apply
    from gcdis_ray.run.progress import Line, Reporter

    pictures = None
    if args.pictures is not None:
        pictures = PictureRequest(args.pictures, args.display_score)
    elif args.display_score is not None:
        raise ConfigError("is of pictures", where="--display-score", fix="add --pictures")
    request = Request(
        images=args.images,
        out=args.out,
        limits=_given(args, "min_score", "max_per_image"),
        compute=_given(args, "runtime", "address", "data_workers", "gpus_per_data_worker"),
        overrides=args.set,
        pictures=pictures,
    )
    reporter, line = Reporter(), Line()
    with set_aside(args.json):
        try:
            applied = apply(open_trained(args.run), request, reporter, line.tell)
        finally:
            reporter.close()
            line.close()
    if not applied.fresh:
        print("Nothing to do: everything is there.", file=sys.stderr)
    if args.json:
        print_json({**applied.summary, "uri": applied.uri, "seconds": round(applied.seconds, 3)})
        return 0
    print("\n".join(applied.lines()))
    return 0


def _given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(args, name)) is not None}
