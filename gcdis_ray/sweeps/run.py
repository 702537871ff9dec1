"""Runs a sweep: shared stages first, then its trials as the kind and the runtime ask for."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from gcdis_ray.errors import Stopped
from gcdis_ray.run.pipeline import Event
from gcdis_ray.runtime.choose import LazyRuntime
from gcdis_ray.runtime.failures import line_of
from gcdis_ray.sweeps.study import Study

ASKED_AT_ONCE = 16  # clusterings between two looks of a searcher that learns
CALLS_PER_TASK = 4  # clusterings: enough to hide what a task costs, few enough to share them out
EMBEDDED = "embed"
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
    runtime = LazyRuntime(study.config.compute, dashboard=study.kind == "train")
    try:
        shared = study.shared_stages()
        if shared and not all(study.base.manifest(name) for name in shared):
            study.base.run(runtime, show_stage, until=shared[-1])
        if study.kind == "cluster":
            _cluster(study, runtime, show_stage)
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


def _cluster(study: Study, runtime: LazyRuntime, show_stage: Callable[[Event], None]) -> None:
    learns = study.spec.searcher == "optuna"
    while True:
        asked: dict[int, Mapping[str, Any]] = {}
        most = ASKED_AT_ONCE if learns else study.total
        while len(asked) < most and (taken := study.take()) is not None:
            asked[taken[0]] = taken[1]
        if not asked:
            return
        _cluster_batch(study, asked, runtime, show_stage)


def _cluster_batch(
    study: Study,
    asked: Mapping[int, Mapping[str, Any]],
    runtime: LazyRuntime,
    show_stage: Callable[[Event], None],
) -> None:
    from gcdis_ray.stages import count
    from gcdis_ray.sweeps.cluster import Call, load_points

    body = study.body()
    calls: list[tuple[Hashable, Call]] = []
    owners: list[int] = []
    points: dict[Hashable, Any] = {}
    keys: dict[int, str] = {}
    counts: dict[int, int] = {}
    for number, values in asked.items():
        try:
            pipeline = body.pipeline(values, study.config.seed)
            if pipeline.manifest(EMBEDDED) is None:
                pipeline.run(runtime, show_stage, until=EMBEDDED)
            manifest, ingest = pipeline.manifest(EMBEDDED), pipeline.artifacts()["ingest"]
            assert manifest is not None, "just made"
            config = pipeline.config.stages.count
            settings = count.settings(config)
            mine: list[tuple[Hashable, Call]] = []
            num_classes = len(ingest.json("classes")) + config.num_novel
            for seed in study.seeds:
                name = (manifest.key, settings.dims, settings.max_labeled_per_class,
                        settings.max_unlabeled, seed)  # fmt: skip
                if name not in points:
                    points[name] = load_points(pipeline.artifacts()[EMBEDDED], settings, seed)
                mine.append((name, (num_classes, settings, seed)))
        except Exception as error:  # a trial that fails must not end the others
            study.ended(number, None, line_of(error))
            continue
        keys[number], counts[number] = manifest.key, num_classes
        calls += mine
        owners += [number] * len(mine)
    order = sorted(range(len(calls)), key=lambda index: -counts[owners[index]])  # longest first
    found: dict[int, dict[int, Mapping[str, Any]]] = {number: {} for number in counts}
    for place, result in _measured(study, points, [calls[index] for index in order], runtime):
        number, seed = owners[order[place]], calls[order[place]][1][2]
        found[number][seed] = result
        if len(found[number]) == len(study.seeds):
            by_seed = [found[number][seed] for seed in study.seeds]
            errors = [result["error"] for result in by_seed if "error" in result]
            outcome = None if errors else _outcome(study, by_seed, keys[number], counts[number])
            study.ended(number, outcome, errors[0] if errors else None)


def _measured(
    study: Study,
    points: Mapping[Hashable, Any],
    calls: Sequence[tuple[Hashable, Any]],
    runtime: LazyRuntime,
) -> Iterable[tuple[int, Mapping[str, Any]]]:
    """(index into calls, measures) as they come: from tasks, or one after another here."""
    from gcdis_ray.sweeps.cluster import measure_all

    if study.config.compute.runtime == "ray" and calls:
        runtime()
        from gcdis_ray.runtime.ray_tune import run_tasks

        yield from run_tasks(measure_all, points, calls, CALLS_PER_TASK)
        return
    for index, (name, call) in enumerate(calls):
        yield index, measure_all(points[name], [call])[0]


def _outcome(
    study: Study, by_seed: Sequence[Mapping[str, Any]], key: str, num_classes: int
) -> dict[str, Any]:
    means = {name: statistics.fmean(of[name] for of in by_seed) for name in by_seed[0]}
    return {
        "objective": means[study.goal.name],
        "by_seed": [of[study.goal.name] for of in by_seed],
        "metrics": {"num_classes": num_classes, **means},
        "curve": [],
        "keys": {EMBEDDED: [key]},
    }
