"""``gcdis plan``."""

from __future__ import annotations

import argparse
import json
import sys

from gcdis_ray.cli.configs import config_arguments, open_pipeline, until_argument
from gcdis_ray.cli.telling import json_argument

HELP = "show what a run would do; writes nothing"
EXAMPLE = "gcdis plan mine.yaml --rates benchmarks/rates_a100.yaml --price-per-hour 3"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    until_argument(parser)
    parser.add_argument(
        "--rates",
        action="append",
        default=[],
        metavar="FILE",
        help="also the hours, by rates of benchmarks/gpu_smoke.py or estimates, as in "
        "benchmarks/rates_a100.yaml; of several files the later ones win",
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="X",
        help="with --rates, also the cost: what all machines together cost an hour",
    )
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.run.checks import before_run, too_slow
    from gcdis_ray.run.plan import bill_for_people, describe, rows_for_people
    from gcdis_ray.run.rates import bill, check_price, read_rates

    check_price(args.price_per_hour, args.rates)
    rates = read_rates(args.rates) if args.rates else None
    pipeline = open_pipeline(args)
    stages = pipeline.selected(None, args.until)
    before_run(pipeline.config, stages)
    entries = [entry for entry in describe(pipeline, rates) if entry["name"] in stages]
    due = bill(entries, args.price_per_hour) if rates else None
    if args.json:
        told = dict(hours=due.hours, without=due.without, cost=due.cost) if due else {}
        print(json.dumps({"stages": entries, **told}, indent=1))
    else:
        print(rows_for_people(entries))
        if rates and due:
            print(bill_for_people(due, rates, pipeline))
    todo = [entry["name"] for entry in entries if entry["action"] == "run"]
    if slow := too_slow(pipeline.config, todo):
        print(f"gcdis: run will refuse: {slow}", file=sys.stderr)
    return 0
