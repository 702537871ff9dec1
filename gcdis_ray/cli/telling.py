"""What commands say of a run: lines for people, JSON for scripts."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcdis_ray.run.pipeline import Pipeline


def json_argument(parser: argparse.ArgumentParser) -> None:
    """``--json``: standard output is one JSON document and nothing else."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(document: Any) -> None:
    print(json.dumps(document))


def set_aside(as_json: bool) -> AbstractContextManager[object]:
    """While it is open, what is printed goes to standard error if ``as_json``: people's lines, and
    remarks of Ray."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def status_of(pipeline: Pipeline) -> dict[str, Any]:
    """The document of ``gcdis status --json``."""
    from gcdis_ray.run.pipeline import iter_status

    stages = list(iter_status(pipeline))
    return {"name": pipeline.config.name, "stages": stages, "metrics": metrics_of(pipeline)}


def metrics_of(pipeline: Pipeline) -> dict[str, Any] | None:
    """The document ``metrics`` of the last node that gives one, once it is made."""
    giver = pipeline.giver("metrics")
    artifact = pipeline.artifact(giver) if giver else None
    return artifact.json("metrics") if artifact and artifact.has("metrics") else None


def print_summaries(pipeline: Pipeline) -> None:
    """What the stages that are done say, on standard output."""
    from gcdis_ray.run.summary import summaries

    lines = summaries(pipeline)
    print("".join(f"{line}\n" for line in lines), end="")
    if lines and pipeline.config.oracle:
        from gcdis_ray.sweeps.summary import ORACLE

        print(ORACLE)


def print_warnings(pipeline: Pipeline) -> None:
    """Why the results should not be trusted, on standard error."""
    from gcdis_ray.run.summary import warnings

    for line in warnings(pipeline):
        print(line, file=sys.stderr)
