"""Training on Ray Train: a group of workers runs the loop; Ray restarts it when one is lost."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
from ray.exceptions import RayError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointConsistencyMode,
    CheckpointUploadMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
)
from ray.train.torch import TorchConfig, TorchTrainer

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import GcdisError, Stopped, WorkersLost
from gcdis_ray.runtime.devices import BACKENDS, Kind
from gcdis_ray.runtime.ray_board import STARTED, Board
from gcdis_ray.runtime.ray_devices import check_kind
from gcdis_ray.runtime.ray_session import shortage, train_resources
from gcdis_ray.store.artifacts import FileRecord
from gcdis_ray.store.meter import count, metering
from gcdis_ray.store.s3 import path_and_filesystem
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.checkpoints import KEEP, mark_whole, newest_whole, step_folder
from gcdis_ray.training.plan import FitPlan, Progress
from gcdis_ray.training.task import TrainingTask

POLL_S = 0.2


class Trainer(TorchTrainer):
    """TorchTrainer without two helpers that cost a process each: one hands out Ray Data sets, of
    which we pass none; the other frees the workers of a dead driver on a cluster that lives on, so
    it is left out only where Ray ends with the driver."""

    _unused = ("DatasetsCallback",)
    _unused_without_cluster = ("PlacementGroupCleanerCallback",)

    def __init__(self, *args: Any, own_ray: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leave_out = self._unused + (self._unused_without_cluster if own_ray else ())

    def _create_default_callbacks(self) -> list[Any]:
        every = super()._create_default_callbacks()
        return [callback for callback in every if type(callback).__name__ not in self._leave_out]


class ReportedCheckpoints:
    """Implements :class:`gcdis_ray.training.checkpoints.Checkpoints` by Ray Train's reports.

    A checkpoint counts once the controller has seen the reports of all ranks; then it marks it as
    whole. Folders are named by step, so one that was uploaded but never counted is overwritten when
    its step is redone.

    Files are written here, then go up in the background while training goes on, one checkpoint at a
    time. The last one is waited for: a run does not end before it is there.

    Args:
        earlier: the checkpoint to begin with, of a driver before this one.
        notices: ask Ray whether nodes are about to be taken away.
    """

    def __init__(self, earlier: Checkpoint | None, *, notices: bool) -> None:
        self._earlier, self._notices = earlier, notices
        self._going: set[str] = set()  # nodes of which notice was given

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint() or self._earlier
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def save(self, step: int, write: Callable[[Path], None] | None) -> None:
        checkpoint = None
        if write is not None:
            # waits for the one before: a slow storage must not fill the disk here
            ray.train.get_all_reported_checkpoints(CheckpointConsistencyMode.COMMITTED)
            folder = tempfile.mkdtemp(prefix="gcdis-")  # Ray removes it once it is uploaded
            try:
                write(Path(folder))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            checkpoint = Checkpoint.from_directory(folder)
        ray.train.report(
            {"step": step},
            checkpoint=checkpoint,
            checkpoint_dir_name=step_folder(step),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        )

    def urgent(self) -> bool:
        notice = ray.train.get_preemption_info() if self._notices else None
        if notice is None or self._going.issuperset(notice.preempted_node_ids):
            return False
        self._going.update(notice.preempted_node_ids)
        return True


class Watcher(ray.train.UserCallback):
    """Runs in Ray Train's controller: marks whole checkpoints, ends the run at once for a mistake
    of the user's, which a restart would only meet again, and says on the board why a group of
    workers starts anew."""

    def __init__(self, board: Board, plan: FitPlan) -> None:
        self._board, self._plan = board, plan

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None
    ) -> None:
        if checkpoint is not None:
            scratch = open_storage(self._plan.scratch_uri, self._plan.scratch_endpoint)
            mark_whole(scratch, f"{self._plan.run}/{Path(checkpoint.path).name}")

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if mistake := find_mistake(error):
                raise mistake
        rank, error = next(iter(worker_exceptions.items()))
        cause = "its process died"
        if not isinstance(error, RayError):
            cause = (str(error).strip() or type(error).__name__).splitlines()[-1][:120]
        self._board.post(f"worker {rank} was lost ({cause}); starting again")


def find_mistake(error: BaseException | None) -> GcdisError | None:
    """The GcdisError inside what Ray wrapped around it, if there is one."""
    seen = 0
    while error is not None and seen < 10:
        if isinstance(error, GcdisError):
            return error
        for failure in getattr(error, "worker_failures", {}).values():
            if mistake := find_mistake(failure):
                return mistake
        error = (
            getattr(error, "controller_failure", None)
            or getattr(error, "_base_exc", None)
            or error.__cause__
        )
        seen += 1
    return None


def train_worker(config: dict[str, Any]) -> dict[str, list[FileRecord]]:
    """What every worker runs."""
    board: Board = config["board"]
    board.post(STARTED)
    import torch
    from ray.train.torch import get_device

    from gcdis_ray.runtime.ray_metrics import TrainingMetrics
    from gcdis_ray.training.checks import check_bf16
    from gcdis_ray.training.loop import train

    plan: FitPlan = config["plan"]
    check_kind(config["kind"], plan.compute.gpus_per_worker)
    device = torch.device("cpu") if config["kind"] == "cpu" else get_device()

    check_bf16(config["task"].config, plan.compute, where="training")  # of this machine

    metrics = TrainingMetrics(plan.name)

    def tell(progress: Progress) -> None:
        metrics.tell(progress)
        if board.tell(progress):
            raise Stopped("told to end early", where=plan.name)

    checkpoints = ReportedCheckpoints(config["earlier"], notices=not config["own_ray"])
    with metering() as meter:
        members = train(config["task"], plan, checkpoints, device, tell)
    board.post(meter.amounts())
    return members


def fit(
    task: TrainingTask,
    plan: FitPlan,
    device: Kind,
    progress: Callable[[Progress], None],
    board: Board,
    *,
    own_ray: bool,
) -> dict[str, list[FileRecord]]:
    """Train to the end; see :class:`gcdis_ray.runtime.base.Runtime`.

    Args:
        device: that of the workers.
        own_ray: Ray ends with this process.
    """
    compute = plan.compute
    path, filesystem = path_and_filesystem(plan.scratch_uri, plan.scratch_endpoint)
    trainer = Trainer(
        train_worker,
        own_ray=own_ray,
        train_loop_config={
            "task": task,
            "plan": plan,
            "kind": device,
            "board": board,
            "own_ray": own_ray,
            "earlier": _earlier(plan),
        },
        torch_config=TorchConfig(backend=BACKENDS[device]),
        scaling_config=ScalingConfig(
            num_workers=compute.workers,
            use_gpu=compute.gpus_per_worker > 0,
            resources_per_worker={
                name: amount / compute.workers for name, amount in train_resources(compute).items()
            },
        ),
        run_config=RunConfig(
            name=plan.run,  # Ray's folder below the storage path
            storage_path=path,
            storage_filesystem=filesystem,
            # nodes that are taken away with notice are counted apart, and there is no limit to them
            failure_config=FailureConfig(
                max_failures=compute.max_failures, max_preemption_failures=-1
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=KEEP),
            callbacks=[Watcher(board, plan)],
        ),
    )
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(trainer.fit().return_value)
        except BaseException as error:  # raised again by the thread that waits
            outcome.append(error)

    # Not in the main thread: there Ray would take over Ctrl-C, and this one must watch the board.
    thread = threading.Thread(target=run, daemon=True)
    board.stop(False)
    board.take()
    thread.start()
    try:
        _watch(thread, task.config.steps, compute, progress, board)
    except Stopped:
        board.stop(True)  # rank 0 hears it at its next step, and takes the others along
        thread.join()
        raise
    if isinstance(outcome[0], BaseException):
        raise _explain(outcome[0], compute) from outcome[0]
    return outcome[0]


def _earlier(plan: FitPlan) -> Checkpoint | None:
    """The newest whole checkpoint that any driver left."""
    folder = newest_whole(open_storage(plan.scratch_uri, plan.scratch_endpoint))
    if folder is None:
        return None
    uri = f"{plan.scratch_uri}/{folder}"
    path, filesystem = path_and_filesystem(uri, plan.scratch_endpoint)
    return Checkpoint(path, filesystem)


def _watch(
    thread: threading.Thread,
    steps: int,
    compute: ComputeConfig,
    progress: Callable[[Progress], None],
    board: Board,
) -> None:
    """Pass on what the workers post until the run is over."""
    latest = Progress(0, steps, "steps", f"starting {compute.workers} worker(s)")
    progress(latest)
    started, said = False, time.monotonic()
    while thread.is_alive():
        thread.join(POLL_S)
        for post in board.take():
            if isinstance(post, Progress):
                latest = post
                progress(post)
            elif isinstance(post, dict):
                count(**post)
            elif post == STARTED:
                started = True
            else:
                started, said = False, time.monotonic()
                progress(Progress(latest.done, steps, "steps", post))
        if not started and time.monotonic() - said > compute.wait_s:
            said = time.monotonic()
            note = shortage(train_resources(compute))
            progress(Progress(latest.done, steps, "steps", note))


def _explain(error: BaseException, compute: ComputeConfig) -> BaseException:
    if mistake := find_mistake(error):
        return mistake
    failures = getattr(error, "worker_failures", {})
    if failures and all(isinstance(failure, RayError) for failure in failures.values()):
        first = str(next(iter(failures.values()))).strip().splitlines()[0]
        return WorkersLost(
            f"training workers died {compute.max_failures + 1} time(s): {first}",
            where="compute.max_failures",
            fix="look for a shortage of memory, then run again: training goes on from the last "
            "checkpoint",
        )
    return error
