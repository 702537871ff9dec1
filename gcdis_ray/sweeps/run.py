"""Runs a sweep: shared stages first, then its trials as the objective and the runtime ask for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import closing

from gcdis_ray.errors import Stopped
from gcdis_ray.run.pipeline import Event
from gcdis_ray.runtime.choose import LazyRuntime
from gcdis_ray.runtime.failures import line_of
from gcdis_ray.sweeps.probes import run_probes
from gcdis_ray.sweeps.study import Study

ABANDONED_S = 86_400  # Tune's scratch this old belongs to no driver that lives


def run_sweep(
    study: Study,
    show_stage: Callable[[Event], None],
    draw: Callable[[], None] = lambda: None,
) -> None:
    """Run every trial that has not ended.

    Args:
        show_stage: events of stages that run in this process.
        draw: called every now and then while trials run elsewhere.

    Raises:
        StorageError, RuntimeUnavailable: the storage or the cluster fails, or not even one trial
            fits. Trials on their way are not put on record: the same command takes them up again.
    """
    study.base.storage.check()
    study.start()
    # With the dashboard: it is asked when the process of a trial has died and left workers behind.
    runtime = LazyRuntime(study.config.compute, dashboard=not study.goal.objective.probe)
    try:
        shared = study.shared_stages()
        if shared and not all(study.base.manifest(name) for name in shared):
            study.base.run(runtime, show_stage, until=shared[-1])
        if study.goal.objective.probe:
            run_probes(study, runtime, show_stage)
        elif study.config.compute.runtime == "local":
            _train_here(study)
        elif not study.is_over():
            runtime()
            _train_on_ray(study, draw)
    finally:
        runtime.close()


def _train_here(study: Study) -> None:
    body = study.body()
    while (taken := study.next()) is not None:
        number, values = taken

        def tell(step: int, value: float, number: int = number) -> None:
            if study.told(number, step, value):
                raise Stopped("ended by the scheduler")

        outcome, line = None, None
        try:
            outcome = body(values, tell)
        except Stopped:
            pass
        except Exception as error:  # a trial that fails must not end the others
            line = line_of(error)
        study.ended(number, outcome, line)


def _train_on_ray(study: Study, draw: Callable[[], None]) -> None:
    from gcdis_ray.runtime.ray_tune import room, run_trials

    compute, folder = study.config.compute, study.folder
    most = room(compute)
    _remove_abandoned(study)
    scratch = f"tune/{uuid.uuid4().hex[:12]}"  # another driver may be at the same sweep
    rounds = run_trials(
        compute,
        study.body(),
        study,
        concurrent=min(study.spec.max_concurrent or most, most),
        scratch_uri=f"{folder.uri}/{scratch}",
        scratch_endpoint=folder.storage.endpoint,
    )
    with closing(rounds):
        for _ in rounds:
            draw()
    folder.storage.delete(f"{folder.base}/{scratch}")


def _remove_abandoned(study: Study) -> None:
    storage, base = study.folder.storage, f"{study.folder.base}/tune"
    for name in storage.folders(base):
        if storage.newest(f"{base}/{name}") < time.time() - ABANDONED_S:
            storage.delete(f"{base}/{name}")
