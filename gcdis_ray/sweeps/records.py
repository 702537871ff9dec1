"""What a sweep leaves in the storage, below ``sweeps/<name>-<key8>/``::

    sweep.json           the resolved sweep, written once
    asked/00003.json     the values Optuna gave a trial, written before it starts
    trials/00003.json    a trial that has ended: done, stopped or failed
    result.json          the best trial
    best.yaml            its config, ready to run
    tensorboard/         a curve per trial
    report.html          the page
    tune/<driver>/       Ray Tune's scratch

``sweep.json``, ``asked`` and ``trials`` are created once and never rewritten, so two drivers cannot
disagree; the others are made from them and are rewritten whenever a driver has come to the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import yaml

from gcdis_ray.errors import StorageError
from gcdis_ray.store.storage import Storage

if TYPE_CHECKING:
    from gcdis_ray.report.sweep_view import SweepView

State = Literal["done", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """A trial that has ended.

    Args:
        state: stopped: ended early by the scheduler.
        objective: mean over seeds; of a stopped trial the last value it told.
        keys: stage -> artifact key per seed, of the stages that were run for this trial.
        seconds: wall time, 0 if cached.
        cached: everything was there from an earlier run: nothing was computed.
        error: one line, of a failed trial.
    """

    number: int
    values: Mapping[str, Any]
    state: State
    objective: float | None = None
    by_seed: tuple[float, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    curve: tuple[Mapping[str, float], ...] = ()  # step, value
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: float = 0.0
    cached: bool = False
    error: str | None = None


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, storage: Storage, base: str) -> None:
        """Args: base: ``sweeps/<name>-<key8>``."""
        self.storage, self.base = storage, base

    @property
    def uri(self) -> str:
        return f"{self.storage.uri}/{self.base}"

    def start(self, sweep: Mapping[str, Any]) -> None:
        self._create("sweep.json", sweep)

    def ask(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Put the values of a trial on record; gives those on record if there are some."""
        name = f"asked/{number:05d}.json"
        if self._create(name, {"number": number, "values": values}):
            return dict(values)
        return self._read(name)["values"]

    def end(self, trial: Trial) -> Trial:
        """Put an ended trial on record; gives the one on record if there is one."""
        name = f"trials/{trial.number:05d}.json"
        return trial if self._create(name, asdict(trial)) else _trial(self._read(name))

    def asked(self) -> dict[int, dict[str, Any]]:
        """Trial -> values, of every trial that was ever started."""
        return {entry["number"]: entry["values"] for entry in self._all("asked")}

    def trials(self) -> dict[int, Trial]:
        """Every trial that has ended, by number."""
        return {entry["number"]: _trial(entry) for entry in self._all("trials")}

    def finish(self, result: Mapping[str, Any], best: Mapping[str, Any]) -> None:
        self.storage.write(f"{self.base}/result.json", _text(result))
        text = yaml.safe_dump(dict(best), sort_keys=False, allow_unicode=True)
        self.storage.write(f"{self.base}/best.yaml", text.encode())

    def view(self) -> SweepView:
        """Everything on record, for the page."""
        from gcdis_ray.report.sweep_view import SweepView

        result = best = None
        with suppress(FileNotFoundError):  # not finished
            best = self.storage.read(f"{self.base}/best.yaml").decode()
            result = self._read("result.json")
        return SweepView(self.uri, self._read("sweep.json"), self._all("trials"), result, best)

    def write_report(self) -> str:
        """Make the page anew; gives its URI."""
        from gcdis_ray.report.sweep_page import write_sweep_report

        self.storage.write(f"{self.base}/report.html", write_sweep_report(self.view()).encode())
        return f"{self.uri}/report.html"

    def _create(self, name: str, value: Mapping[str, Any]) -> bool:
        return self.storage.create(f"{self.base}/{name}", _text(value))

    def _read(self, name: str) -> dict[str, Any]:
        path = f"{self.base}/{name}"
        try:
            return json.loads(self.storage.read(path))
        except ValueError as error:
            raise StorageError(
                "not a record of a sweep",
                where=f"{self.storage.uri}/{path}",
                fix="remove that file and run again",
            ) from error

    def _all(self, folder: str) -> list[dict[str, Any]]:
        paths = self.storage.list(f"{self.base}/{folder}")
        return [self._read(path.removeprefix(f"{self.base}/")) for path in paths]


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _trial(entry: Mapping[str, Any]) -> Trial:
    lists = {name: tuple(entry[name]) for name in ("by_seed", "curve")}
    keys = {stage: tuple(of_seeds) for stage, of_seeds in entry["keys"].items()}
    return Trial(**{**entry, **lists, "keys": keys})
