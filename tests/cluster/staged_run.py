"""A run in lockstep with a test: ``python staged_run.py CONFIG OVERRIDES...``.

One line of JSON per event; at the start and at the end of a stage it waits for a line of input.
"""

from __future__ import annotations

import json
import sys

from gcdis_ray.run.pipeline import Event, Pipeline, load_config
from gcdis_ray.runtime.choose import LazyRuntime


def tell(event: Event) -> None:
    at = event.progress
    numbers = dict(done=at.done, total=at.total, unit=at.unit, note=at.note) if at else {}
    print(json.dumps(dict(stage=event.stage, kind=event.kind, **numbers)), flush=True)
    if event.kind in ("start", "done"):
        sys.stdin.readline()


def main(config: str, *overrides: str) -> None:
    run = Pipeline(load_config(config, overrides))
    runtime = LazyRuntime(run.config.compute)
    try:
        run.run(runtime, tell)
    finally:
        runtime.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
