"""The config on a command line: its arguments, and the run that it describes, opened."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gcdis_ray.run.pipeline import Pipeline


def config_arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """A config file, and ``--set``."""
    parser.add_argument("config", nargs="?" if optional else None, help="YAML config file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a config value, e.g. stages.discover.gcdis.training.steps=500",
    )


def range_arguments(parser: argparse.ArgumentParser) -> None:
    """``--from`` (as ``start``) and ``--until``."""
    parser.add_argument("--from", dest="start", metavar="STAGE", help="first stage")
    until_argument(parser)


def until_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until", metavar="STAGE", help="last stage")


def open_pipeline(args: argparse.Namespace) -> Pipeline:
    """The run of ``args.config`` or, where there is such an argument, of ``args.from_sweep``."""
    from gcdis_ray.run.pipeline import Pipeline, load_config
    from gcdis_ray.run.progress import Reporter

    if (sweep := getattr(args, "from_sweep", None)) is None:
        config = load_config(args.config, args.set)
    else:
        from gcdis_ray.sweeps.chosen import load_chosen

        config = load_chosen(sweep, args.set)
    reporter = Reporter()
    try:
        pipeline = Pipeline(config, show=reporter)
    finally:
        reporter.close()
    pipeline.need_decisions(getattr(args, "until", None))
    return pipeline
