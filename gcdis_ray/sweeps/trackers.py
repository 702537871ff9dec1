"""Trials in TensorBoard, MLflow and Weights & Biases, each written when it has ended.

TensorBoard files are part of the sweep's folder and need no extra. The others go where their own
environment variables say; without them to local files (``mlruns``, ``wandb``), for which no server
is needed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gcdis_ray.errors import ConfigError
from gcdis_ray.sweeps.records import SweepFolder, Trial

_PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}


class Tracker(Protocol):
    def ended(self, trial: Trial) -> None:
        """Write a trial that has just ended."""
        ...


def check_trackers(names: Sequence[str], where: str) -> None:
    """Raise ConfigError unless what they need is installed."""
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise ConfigError(
                f"{_PACKAGES[name]} is not installed",
                where=f"{where}: trackers",
                fix=f"uv sync --extra {name}, or take {name} out",
            )


def open_trackers(names: Sequence[str], folder: SweepFolder, objective: str) -> list[Tracker]:
    """TensorBoard, and those named.

    Args:
        objective: what the trials' objective is called.

    Raises:
        ConfigError: one of them does not start.
    """
    group = folder.base.rsplit("/", 1)[-1]
    kinds = {"mlflow": MLflow, "wandb": WandB}
    trackers: list[Tracker] = [_Optional("tensorboard", TensorBoard(folder, objective))]
    for name in names:
        try:
            trackers.append(_Optional(name, kinds[name](group, objective)))
        except Exception as error:  # whatever its server and its client come up with
            raise ConfigError(
                f"{name} does not start: {_short(error)}",
                where="trackers",
                fix=f"check the environment variables of {name}, or take it out",
            ) from error
    return trackers


class _Optional:
    """A tracker whose first failure is said, and its last: the sweep goes on without it."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._dropped = False

    def ended(self, trial: Trial) -> None:
        if self._dropped:
            return
        try:
            self._tracker.ended(trial)
        except Exception as error:
            self._dropped = True
            print(
                f"gcdis: {self._name} takes no trial any more, from trial {trial.number} on: "
                f"{_short(error)}",
                file=sys.stderr,
            )


def _short(error: Exception) -> str:
    text = str(error).strip() or "no message"
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as trackers take them: numbers, strings and switches as they are, others as text."""
    return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}


class TensorBoard:
    """One TensorBoard run per trial, with its values for the page of hyperparameters."""

    def __init__(self, folder: SweepFolder, objective: str) -> None:
        self._folder, self._objective = folder, objective

    def ended(self, trial: Trial) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        with tempfile.TemporaryDirectory(prefix="gcdis-") as scratch:
            writer = SummaryWriter(scratch, write_to_disk=True)
            for point in trial.curve:
                writer.add_scalar(f"{self._objective}/way", point["value"], int(point["step"]))
            if trial.objective is not None:
                writer.add_scalar(self._objective, trial.objective, 0)
            shown = {} if trial.objective is None else {self._objective: trial.objective}
            for summary in hparams(_plain(trial.values), shown):
                writer.file_writer.add_summary(summary)  # pyright: ignore[reportOptionalMemberAccess]
            writer.close()
            for file in Path(scratch).iterdir():
                path = f"{self._folder.base}/tensorboard/{trial.number:05d}/{file.name}"
                self._folder.storage.write(path, file.read_bytes())


class MLflow:
    """One MLflow run per trial, in an experiment named after the sweep."""

    def __init__(self, group: str, objective: str) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        if not os.environ.get("MLFLOW_TRACKING_URI"):  # files: MLflow asks to be told so
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        where = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        self._client, self._objective = MlflowClient(tracking_uri=where), objective
        known = self._client.get_experiment_by_name(group)
        self._experiment = known.experiment_id if known else self._client.create_experiment(group)

    def ended(self, trial: Trial) -> None:
        name = f"trial {trial.number}"
        run = self._client.create_run(self._experiment, run_name=name).info.run_id
        for path, value in trial.values.items():
            self._client.log_param(run, path, value)
        for point in trial.curve:
            step = int(point["step"])
            self._client.log_metric(run, f"{self._objective}.way", point["value"], step=step)
        if trial.objective is not None:
            self._client.log_metric(run, self._objective, trial.objective)
        self._client.set_tag(run, "state", trial.state)
        status = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[trial.state]
        self._client.set_terminated(run, status=status)


class WandB:
    """One run per trial, in a group named after the sweep; offline without a key."""

    def __init__(self, group: str, objective: str) -> None:
        self._group, self._objective = group, objective

    def ended(self, trial: Trial) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        offline = not os.environ.get("WANDB_API_KEY") and not os.environ.get("WANDB_MODE")
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "gcdis"),
            group=self._group,
            name=f"trial {trial.number}",
            config=_plain(trial.values),
            mode="offline" if offline else None,
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )
        for point in trial.curve:
            run.log({f"{self._objective}/way": point["value"]}, step=int(point["step"]))
        run.summary.update({"state": trial.state, self._objective: trial.objective})
        run.finish(exit_code=1 if trial.state == "failed" else 0)
