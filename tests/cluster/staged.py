"""A run on a cluster as a test drives it, and what takes its nodes away."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from raylets import HERE, Cluster, Node
from small_run import CONFIG, contents, open_pipeline
from workers import DATA, RANK, kind_of

POLL_S = 0.03
DATA_GPUS = 0.5


class StagedRun:
    """A driver on the head that waits for this process at the start and the end of each stage."""

    def __init__(self, cluster: Cluster, overrides: list[str], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "staged_run.py"), str(CONFIG), *overrides],
                env=cluster.environment | {"RAY_ADDRESS": cluster.address},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._events.put(json.loads(line))
        self._events.put(None)

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they come, and ``{}`` whenever there has been none for a moment. The driver
        goes on when the next is asked for."""
        assert self._process.stdin is not None
        while True:
            try:
                event = self._events.get(timeout=POLL_S)
            except queue.Empty:
                yield {}
                continue
            if event is None:
                break
            yield event
            if event["kind"] in ("start", "done"):
                self._process.stdin.write("\n")
                self._process.stdin.flush()
        assert self._process.wait() == 0, self._log.read_text()[-5000:]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


class NodeKiller:
    """Kills the node of a worker that is at work; a new node takes its place.

    Args:
        faults: (stage, kind of worker) to kill a node for, once each; a stage without workers
            (kind ``""``) loses a node when it starts.
    """

    def __init__(
        self, cluster: Cluster, overrides: list[str], faults: set[tuple[str, str]]
    ) -> None:
        self._cluster, self.faults = cluster, faults
        self._run = open_pipeline(overrides)
        self.finished: dict[tuple[str, str], set[str]] = {}  # fault -> units finished by then

    def look(self, stage: str) -> None:
        """Kill a node if one of its workers is at work for ``stage`` and is to be killed."""
        due = {kind for of, kind in self.faults - self.finished.keys() if of == stage}
        for node in list(self._cluster.nodes) if due else ():
            for pid, command in node.processes().items():
                kind = kind_of(command)
                if kind in due and self._is_caught(pid, stage, kind):
                    self.kill(node, stage, kind)
                    return

    def _is_caught(self, pid: int, stage: str, kind: str) -> bool:
        """Stop a process in the middle of a unit; if it is at the end of one it goes on."""
        with suppress(OSError):
            if self._is_at_work(pid, stage, kind):
                os.kill(pid, signal.SIGSTOP)
                if self._is_at_work(pid, stage, kind):
                    return True
                os.kill(pid, signal.SIGCONT)
        return False

    def _is_at_work(self, pid: int, stage: str, kind: str) -> bool:
        if kind == RANK:  # it has done some steps, and is not over
            listed = self._listed(stage)
            started = any("/step-" in path for path in listed)
            return started and not any("/done/fit/" in path for path in listed)
        return ".submit" in Path(f"/proc/{pid}/cmdline").read_text()  # Ray names the call

    def kill(self, node: Node, stage: str, kind: str) -> None:
        self._cluster.kill(node)
        self.finished[stage, kind] = self.units(stage)
        self._cluster.add()

    def _listed(self, stage: str) -> Mapping[str, int]:
        return self._run.storage.list(self._run.nodes[stage].base)

    def units(self, stage: str) -> set[str]:
        """Finished ones: shards and trainings, or the whole of a stage without workers."""
        base, listed = self._run.nodes[stage].base, self._listed(stage)
        units = {path.partition("/done/")[2] for path in listed if "/done/" in path}
        return units | ({"whole"} if f"{base}/manifest.json" in listed and not units else set())

    def unfinished(self) -> dict[tuple[str, str], int]:
        """Fault -> units that its stage still had to do; to be asked when the run is over."""
        return {
            fault: len(self.units(fault[0]) - finished) for fault, finished in self.finished.items()
        }


def resources(actor: Mapping[str, Any]) -> tuple[float, float]:
    """Logical CPUs and GPUs that an actor of the state API holds, in a placement group or not."""
    held = {"CPU": 0.0, "GPU": 0.0}
    for name, amount in actor["required_resources"].items():
        kind = name.partition("_group_")[0]
        if kind in held:
            held[kind] = max(held[kind], float(amount))  # named with and without its bundle
    return held["CPU"], held["GPU"]


class Holdings:
    """What the workers of each stage hold, from Ray's state."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen = {actor["actor_id"] for actor in cluster.state("actors")}  # of other runs
        self.held: dict[tuple[str, str], set[tuple[float, float]]] = {}  # (stage, kind) -> each one
        self.nodes: set[str] = set()  # where they were

    def note(self, stage: str) -> None:
        """Take the actors that are new for those of ``stage``, which is over."""
        for actor in self._cluster.state("actors"):
            names = f"{actor['class_name']} {actor.get('repr_name') or ''}"
            kind = next((kind for kind in (DATA, RANK) if kind in names), "")
            if kind and actor["actor_id"] not in self._seen:
                self._seen.add(actor["actor_id"])
                self.held.setdefault((stage, kind), set()).add(resources(actor))
                self.nodes.add(actor["node_id"])


def overrides_on(endpoint: str, name: str, small_run: Any) -> list[str]:
    """The small run on Ray, its storage a bucket."""
    return [
        *small_run.overrides,
        f"storage=s3://bucket/{name}",
        f"storage_endpoint={endpoint}",
        "compute.runtime=ray",
        "compute.data_workers=2",
        "compute.gpus_per_worker=1",  # on paper: no node has one
        f"compute.gpus_per_data_worker={DATA_GPUS}",
    ]


def drive(
    cluster: Cluster,
    overrides: list[str],
    killer: NodeKiller,
    log: Path,
    over: Callable[[str], None] = lambda stage: None,
) -> None:
    """Run on three nodes to the end, while ``killer`` looks for what to kill. ``over`` is told
    each stage when it is."""
    cluster.have(2)
    run, stage = StagedRun(cluster, overrides, log), ""
    try:
        for event in run.events():
            stage = event.get("stage", stage)
            if event.get("kind") == "start" and (stage, "") in killer.faults:
                killer.kill(cluster.nodes[0], stage, "")
            elif event.get("kind") == "done":
                over(stage)
            elif stage:
                killer.look(stage)
                cluster.tend()
    finally:
        run.end()


def check(
    killer: NodeKiller,
    overrides: list[str],
    small_run: Any,
    record_property: Callable[[str, object], None],
) -> None:
    """Every fault has hit unfinished work; metrics, rows and bytes are as of an undisturbed run."""
    unfinished = killer.unfinished()
    assert unfinished.keys() == killer.faults
    assert all(unfinished.values()), unfinished
    assert rows(overrides) == rows(small_run.overrides)
    assert metrics(overrides) == metrics(small_run.overrides)
    assert contents(overrides) == small_run.contents
    told = [f"{stage} {kind}".strip() + f" ({n} to do)" for (stage, kind), n in unfinished.items()]
    record_property(
        "faults", f"{len(killer.faults)} nodes killed, {len(unfinished)} survived: {told}"
    )


def rows(overrides: list[str]) -> dict[str, dict[str, int]]:
    """Stage -> table -> rows."""
    return {
        name: {
            member: sum(record.rows or 0 for record in records)
            for member, records in artifact.manifest.files.items()
        }
        for name, artifact in open_pipeline(overrides).artifacts().items()
    }


def metrics(overrides: list[str]) -> Any:
    return open_pipeline(overrides).artifacts()["evaluate"].json("metrics")
