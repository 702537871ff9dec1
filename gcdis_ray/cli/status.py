"""``gcdis status``."""

from __future__ import annotations

import argparse

from gcdis_ray.cli.configs import config_arguments, open_pipeline
from gcdis_ray.cli.telling import (
    json_argument,
    print_json,
    print_summaries,
    print_warnings,
    status_of,
)

HELP = "show which stages are done, how far one is, the metrics"
EXAMPLE = "gcdis status mine.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.words import duration, size

    pipeline = open_pipeline(args)
    status = status_of(pipeline)
    if args.json:
        print_json(status)
        return 0
    for s in status["stages"]:
        made = ""
        if s["state"] == "done":
            made = f"{s['rows']:>8,} rows  {size(s['bytes']):>9}  {duration(s['seconds'] or 0):>11}"
        elif far := s["progress"]:
            made = (
                f"{far['part']}: {far['done']:,}/{far['total']:,} {far['unit']}, "
                f"last written {duration(far['idle_s'])} ago"
            )
        print(f"{s['name']:<13}{s['state']:<12}{s['key']}  {made}".rstrip())
    print_summaries(pipeline)
    print_warnings(pipeline)
    return 0
