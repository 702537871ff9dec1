"""Sweeps on Ray: trials that train on Ray Tune, measurements that only compute as plain tasks.

Tune decides nothing here: which trial is next, when one ends early and what came of it is the
business of the :class:`~gcdis_ray.runtime.base.Trials` it asks. It places trials, keeps them to the
number allowed, and starts a trial anew whose process died.

A trial is a small actor that drives its own training workers. It is ended by its own hand: told to
stop, it ends its workers and frees their places before its process goes.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import GcdisError, RuntimeUnavailable, Stopped, StorageError
from gcdis_ray.runtime.base import TrialFunction, Trials
from gcdis_ray.runtime.failures import line_of
from gcdis_ray.runtime.ray_session import text, train_resources
from gcdis_ray.store.s3 import path_and_filesystem

K = TypeVar("K", bound=Hashable)

TRIAL_CPUS = 0.01  # of a trial's own actor, which only waits; Tune takes no empty demand


def peak_cpus(compute: ComputeConfig) -> float:
    """Logical CPUs a trial holds at its busiest: its training workers, or its data actors."""
    return TRIAL_CPUS + max(train_resources(compute)["CPU"], float(compute.data_workers))


def room(compute: ComputeConfig) -> int:
    """Trials the cluster holds at their busiest all at once, so that none waits for another that
    waits for it.

    Raises:
        RuntimeUnavailable: not even one.
    """
    need = {"CPU": peak_cpus(compute)}
    need |= {k: v for k, v in train_resources(compute).items() if k != "CPU"}
    have = ray.cluster_resources()
    fits = min(int(have.get(name, 0) / amount) for name, amount in need.items())
    if fits < 1:
        raise RuntimeUnavailable(
            f"a trial needs {text(need)} at its busiest, the cluster has {text(have)}",
            where="compute.workers, compute.data_workers, compute.num_cpus",
            fix="lower compute.workers or compute.data_workers of the base config, raise "
            "compute.num_cpus, or give the compute.address of a larger cluster",
        )
    return fits


class TrialActor(tune.Trainable):
    """Runs a trial in a thread, so that it can be told to end and can be waited for."""

    def setup(self, config: dict[str, Any], run: TrialFunction) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stop = threading.Event()

        def tell(step: int, value: float) -> None:
            if self._stop.is_set():
                raise Stopped("ended by the scheduler")
            self._said.put({"step": step, "value": value})

        def work() -> None:
            end: dict[str, Any] = {"done": True, "outcome": None, "error": None, "fault": None}
            try:
                end["outcome"] = run(config["values"], tell)
            except Exception as error:  # a trial that fails must not end the others
                try:
                    end["error"] = line_of(error)
                except (StorageError, RuntimeUnavailable) as fault:
                    end["fault"] = _packed(fault)
            end["outcome"] = json.dumps(end["outcome"])  # Tune would take a mapping apart
            self._said.put(end)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def step(self) -> dict[str, Any]:
        return self._said.get()

    def cleanup(self) -> None:
        self._stop.set()
        self._thread.join()


def _packed(fault: GcdisError) -> str:
    return json.dumps([type(fault).__name__, fault.what, fault.where, fault.fix])


def _unpacked(text: str) -> GcdisError:
    name, what, where, fix = json.loads(text)
    kind = {kind.__name__: kind for kind in (StorageError, RuntimeUnavailable)}[name]
    return kind(what, where=where, fix=fix)


class _Ours:
    """Tune pickles what it is given, to restore itself. It never does here: what ended is on
    record, and a new driver asks for the rest."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _Search(_Ours, Searcher):
    def __init__(self, trials: Trials, closing: threading.Event) -> None:
        super().__init__(metric="value", mode="max")
        self._trials, self._closing = trials, closing

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        entry = None if self._closing.is_set() else self._trials.next()
        if entry is None:
            return Searcher.FINISHED
        return {"number": entry[0], "values": dict(entry[1])}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The callback has told it already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class _Schedule(_Ours, FIFOScheduler):
    def __init__(self, trials: Trials) -> None:
        super().__init__()
        self._trials = trials

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if "step" not in result:
            return FIFOScheduler.CONTINUE
        stop = self._trials.told(trial.config["number"], result["step"], result["value"])
        return FIFOScheduler.STOP if stop else FIFOScheduler.CONTINUE


class _Ends(_Ours, tune.Callback):
    """Passes on how trials ended, until ``closing``: what ends then ends with the whole. ``fault``
    is what a trial met that ends them all; Tune would take it for that trial's own if it were
    raised here."""

    def __init__(self, trials: Trials, closing: threading.Event) -> None:
        self._trials, self._closing = trials, closing
        self.fault: GcdisError | None = None

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        result = trial.last_result or {}
        if self._closing.is_set():
            return
        if fault := result.get("fault"):
            self.fault = _unpacked(fault)
            self._closing.set()
            return
        outcome = json.loads(result.get("outcome", "null"))
        self._trials.ended(trial.config["number"], outcome, result.get("error"))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        if not self._closing.is_set():
            self._trials.ended(trial.config["number"], None, "the trial's process died")


def run_trials(
    compute: ComputeConfig,
    run: TrialFunction,
    trials: Trials,
    *,
    concurrent: int,
    scratch_uri: str,
    scratch_endpoint: str | None,
) -> Generator[None]:
    """Run trials until ``trials`` has no more. Yields every now and then, for the caller to draw;
    a caller that closes the generator, or gets an error, leaves Tune in its thread until what runs
    has ended or Ray is shut down, but ``trials`` is asked and told no more.

    Args:
        concurrent: trials at a time, at most :func:`room`.
        scratch_uri: of Tune's own files, a folder that all nodes reach or ``s3://``.

    Raises:
        StorageError, RuntimeUnavailable: as soon as a trial has met one; see :func:`line_of`.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # results have their own records
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # the last result has an outcome only
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is on record
    path, filesystem = path_and_filesystem(scratch_uri, scratch_endpoint)
    closing = threading.Event()
    ends = _Ends(trials, closing)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialActor, run=run), {"CPU": TRIAL_CPUS}),
        tune_config=tune.TuneConfig(
            search_alg=_Search(trials, closing),
            scheduler=_Schedule(trials),
            num_samples=-1,
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=path,
            storage_filesystem=filesystem,
            callbacks=[ends],
            failure_config=tune.FailureConfig(max_failures=compute.max_failures),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            tuner.fit()
        except BaseException as error:  # raised again by the thread that waits
            failure.append(error)

    # Not in the main thread: there Tune would take over Ctrl-C, and this one must draw.
    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        while thread.is_alive() and ends.fault is None:
            thread.join(0.25)
            yield
    finally:
        closing.set()
    if ends.fault is not None:
        raise ends.fault
    if failure:
        raise _mistake(failure[0]) or failure[0]


def _mistake(error: BaseException | None) -> GcdisError | None:
    """The GcdisError that Tune was handling when it raised its own error, if there is one."""
    while error is not None and not isinstance(error, GcdisError):
        error = error.__cause__ or error.__context__
    return error


def run_tasks(
    function: Callable[[Any, Sequence[Any]], Sequence[Any]],
    shared: Mapping[K, Any],
    calls: Sequence[tuple[K, Any]],
    batch: int,
) -> Iterator[tuple[int, Any]]:
    """``function(shared[name], batch of arguments)`` as tasks; each shared value is sent once.

    Args:
        calls: (name of a shared value, argument).
        batch: calls of one shared value that a task makes at most.

    Yields:
        (index into ``calls``, result) as they come.
    """
    stored = {name: ray.put(value) for name, value in shared.items()}
    by_name: dict[K, list[int]] = {}
    for index, (name, _) in enumerate(calls):
        by_name.setdefault(name, []).append(index)
    task = ray.remote(num_cpus=1, max_retries=3)(function)
    parts = [
        indices[start : start + batch]
        for indices in by_name.values()
        for start in range(0, len(indices), batch)
    ]
    waiting: dict[Any, list[int]] = {}
    for part in sorted(parts):  # in the order of calls, whatever they share
        arguments = [calls[index][1] for index in part]
        waiting[task.remote(stored[calls[part[0]][0]], arguments)] = part
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        for reference in ready:
            part = waiting.pop(reference)
            try:
                results = ray.get(reference)
            except RayError as error:
                raise RuntimeUnavailable(
                    f"a task died: {str(error).strip().splitlines()[0]}",
                    where="compute.runtime: ray",
                    fix="look for a shortage of memory, then run again: finished trials are kept",
                ) from error
            yield from zip(part, results, strict=True)
