"""``gcdis doctor``."""

from __future__ import annotations

import argparse

from gcdis_ray.cli.configs import config_arguments

HELP = "check this machine, the storage and Ray"
EXAMPLE = "gcdis doctor mine.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser, optional=True)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.run.checks import doctor

    config = None
    if args.config:
        from gcdis_ray.run.pipeline import load_config

        config = load_config(args.config, args.set)
    marks = {"ok": "✓", "warn": "!", "fail": "✗"}
    results = list(doctor(config))
    for check in results:
        print(f"{marks[check.state]} {check.name:<14} {check.detail}")
    return 2 if any(check.state == "fail" for check in results) else 0
