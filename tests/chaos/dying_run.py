"""A run in one process that kills itself: ``python dying_run.py STAGE CONFIG OVERRIDES...``.

It dies in the middle of the stage's work if that has a middle (shards or training steps), else with
everything written but the manifest.
"""

from __future__ import annotations

import os
import signal
import sys

from gcdis_ray.run import pipeline
from gcdis_ray.run.pipeline import Event, Pipeline, load_config
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.store.artifacts import Manifest
from gcdis_ray.store.storage import Storage, commit


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(stage: str, config: str, *overrides: str) -> None:
    def show(event: Event) -> None:
        at = event.progress
        if event.stage == stage and at and at.total / 2 <= at.done < at.total:
            die()

    def commit_or_die(storage: Storage, manifest: Manifest) -> Manifest:
        if manifest.node == stage:
            die()
        return commit(storage, manifest)

    pipeline.commit = commit_or_die
    run = Pipeline(load_config(config, overrides))
    run.run(lambda: LocalRuntime(run.config.compute), show)


if __name__ == "__main__":
    main(*sys.argv[1:])
