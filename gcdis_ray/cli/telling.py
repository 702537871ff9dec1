"""What commands say of a run: lines for people, JSON for scripts."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gcdis_ray.run.pipeline import Pipeline


def json_argument(parser: argparse.ArgumentParser) -> None:
    """``--json``: standard output is one JSON document and nothing else."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(document: Any) -> None:
    print(json.dumps(document))


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
