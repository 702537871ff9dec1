"""``gcdis doctor``."""

from __future__ import annotations

import argparse

from gcdis_ray.cli.configs import config_arguments
from gcdis_ray.cli.telling import json_argument, print_json, set_aside

HELP = "check this machine, the storage and Ray"
EXAMPLE = "gcdis doctor mine.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser, optional=True)
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from gcdis_ray.run.checks import doctor

    config = None
    if args.config:
        from gcdis_ray.run.pipeline import load_config

        config = load_config(args.config, args.set)
    marks = {"ok": "✓", "warn": "!", "fail": "✗"}
    results = []
    with set_aside(args.json):
        for check in doctor(config):  # some take seconds: each is told when it is there
            results.append(check)
            print(f"{marks[check.state]} {check.name:<14} {check.detail}", flush=True)
    if args.json:
        print_json({"checks": [asdict(check) for check in results]})
    return 2 if any(check.state == "fail" for check in results) else 0
