"""``gcdis run``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from gcdis_ray.cli.configs import config_arguments, open_pipeline, range_arguments
from gcdis_ray.cli.telling import (
    json_argument,
    print_json,
    print_summaries,
    print_warnings,
    set_aside,
    status_of,
)
from gcdis_ray.errors import ConfigError

if TYPE_CHECKING:
    from gcdis_ray.run.pipeline import Pipeline

HELP = "run every stage that is not done yet (resumes by itself)"
EXAMPLE = "gcdis run mine.yaml --until discover --set seed=1"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser, optional=True)
    parser.add_argument("--from-sweep", metavar="URI", help="run what this sweep has chosen")
    range_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    if (args.config is None) == (args.from_sweep is None):
        raise ConfigError("give either a config or --from-sweep URI", where="gcdis run")
    with set_aside(args.json):
        pipeline, report = run_stages(args, args.start, args.until)
    if args.json:
        print_json({**status_of(pipeline), "report": report})
    return 0


def run_stages(
    args: argparse.Namespace, start: str | None, until: str | None
) -> tuple[Pipeline, str]:
    """Make the artifacts from node ``start`` until node ``until``, and the page; say what they are.

    Args:
        args: with the config, as ``open_pipeline`` wants it.

    Returns:
        the run, and where its page is.
    """
    from gcdis_ray.run.checks import before_run, too_slow
    from gcdis_ray.run.opened import note_run
    from gcdis_ray.run.progress import Reporter, WorkLine
    from gcdis_ray.runtime.choose import LazyRuntime

    pipeline = open_pipeline(args)
    before_run(pipeline.config, pipeline.selected(start, until))
    # Before torch is imported: sums in this process, too, must not depend on the machine's cores.
    os.environ["OMP_NUM_THREADS"] = str(pipeline.config.compute.threads)
    todo = [name for name in pipeline.selected(start, until) if not pipeline.manifest(name)]
    if slow := too_slow(pipeline.config, todo):
        raise slow
    if todo:
        pipeline.storage.check()
    note_run(pipeline)
    runtime, reporter = LazyRuntime(pipeline.config.compute), Reporter()
    try:
        pipeline.run(runtime, reporter, start, until)
    finally:
        reporter.close()
        runtime.close()
    if not todo:
        print("Nothing to do: everything is cached.", file=sys.stderr)
    from gcdis_ray.run.report import write_run_report  # loads matplotlib: not before it is needed

    with WorkLine("report") as line:
        report = write_run_report(pipeline, only_if_missing=not todo, show=line)
    print_summaries(pipeline)
    print(f"report: {report}")
    print_warnings(pipeline)
    return pipeline, report
