"""``gcdis submit``."""

from __future__ import annotations

import argparse

from gcdis_ray.cli.configs import config_arguments, range_arguments
from gcdis_ray.cli.telling import json_argument, print_json, set_aside

HELP = "run it as a job of a Ray cluster, print what it prints (resumes by itself)"
EXAMPLE = "gcdis submit configs/quickstart.yaml --address http://127.0.0.1:8265"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--address", metavar="URL", help="http://HEAD:8265 (RAY_API_SERVER_ADDRESS)"
    )
    range_arguments(parser)
    parser.add_argument("--no-wait", action="store_true", help="only start it")
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.submitting.submit import submit

    flags = {"--from": args.start, "--until": args.until}
    more = [text for flag, stage in flags.items() if stage for text in (flag, stage)]
    with set_aside(args.json):  # also what the job prints
        done = submit(args.config, more, args.set, address=args.address, wait=not args.no_wait)
    if args.json:
        print_json(done.as_json())
    return done.exit_status or 0
