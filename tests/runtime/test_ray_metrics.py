"""What Prometheus is told of data steps and trainings on Ray."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from toy_shards import NUM_SHARDS, AddTask, Shards
from toy_training import ToyTask, toy_config, toy_plan

import gcdis_ray
from gcdis_ray.runtime.base import Runtime, ShardRecord
from gcdis_ray.store.artifacts import FileRecord
from gcdis_ray.training.pace import Pace
from gcdis_ray.training.plan import Progress

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


class Kept(dict[tuple[str, str], float]):
    """Stands for Ray's metrics: (name, values of the tags) -> value."""

    def make(self, kind: str):
        def metric(name: str, text: str, *, tag_keys: tuple[str, ...], boundaries=None):
            def told(value: float, tags: dict[str, str]) -> None:
                assert set(tags) == set(tag_keys)
                key = (name, "/".join(tags[tag] for tag in tag_keys))
                self[key] = self.get(key, 0) + value if kind == "Counter" else value

            return type(kind, (), dict.fromkeys(("inc", "set", "observe"), staticmethod(told)))()

        return metric


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    from gcdis_ray.runtime import ray_metrics

    kept = Kept()
    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(ray_metrics, kind, kept.make(kind))
    return kept


def test_shards_add_up(kept: Kept):
    from gcdis_ray.runtime.ray_metrics import QueueMetrics, ShardMetrics

    worker, queue = ShardMetrics(AddTask()), QueueMetrics(AddTask(), 3)
    for rows in (4, 0):
        record = ShardRecord(0, {"sums": FileRecord("x", 10, "", rows)}, {})
        worker.done(record, {"read_bytes": 100 * rows, "written_bytes": 7}, 1.5)
        queue.done()
    assert kept == {
        ("gcdis_rows", "sums"): 4,
        ("gcdis_read_bytes", "AddTask"): 400,
        ("gcdis_written_bytes", "AddTask"): 14,
        ("gcdis_shard_seconds", "AddTask"): 1.5,
        ("gcdis_shards_left", "AddTask"): 1,
    }


def test_a_training_tells_its_losses_and_its_pace(kept: Kept):
    from gcdis_ray.runtime.ray_metrics import TrainingMetrics

    metrics = TrainingMetrics("discover-0")
    metrics.tell(Progress(0, 8, "steps"))
    assert kept == {("gcdis_training_steps", "discover-0"): 0}
    pace = Pace(2, 64, 4.0, 1.0, 5_000, 0.5)
    metrics.tell(Progress(2, 8, "steps", losses={"total": 2.5, "contrast": 2.0}, pace=pace))
    assert kept == {
        ("gcdis_training_steps", "discover-0"): 2,
        ("gcdis_training_loss", "discover-0/total"): 2.5,
        ("gcdis_training_loss", "discover-0/contrast"): 2.0,
        ("gcdis_training_step_seconds", "discover-0"): 2.0,
        ("gcdis_training_samples_per_second", "discover-0"): 16.0,
        ("gcdis_training_data_wait", "discover-0"): 0.25,
        ("gcdis_training_gpu_memory_bytes", "discover-0"): 5_000,
        ("gcdis_training_gpu_use", "discover-0"): 0.5,
    }


def test_only_what_runs_on_ray_knows_of_it():
    package = Path(gcdis_ray.__file__).parent
    users = {path.name for path in package.rglob("*.py") if "ray_metrics" in path.read_text()}
    assert users == {"ray_data.py", "ray_train.py"}


class Scraper(threading.Thread):
    """What a Prometheus would see: every line that Ray has served, as long as it runs."""

    def __init__(self, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self._ports, self.lines, self.over = ports, set[str](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(1):
            for port in self._ports:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
                    lines = page.read().decode().splitlines()
                self.lines |= {line for line in lines if line.startswith("ray_gcdis_")}

    def saw(self, pattern: str) -> bool:
        return any(re.match(pattern, line) for line in tuple(self.lines))


@pytest.mark.long
def test_rays_exporter_serves_them(runtime: Runtime, tmp_path: Path):
    import ray

    scraper = Scraper([node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]])
    scraper.start()
    shards = Shards(tmp_path / "data")
    runtime.map_shards(
        AddTask(), [shards.table], shards.args, range(NUM_SHARDS), shards.writer,
        shards.records.append,
    )  # fmt: skip
    plan = toy_plan(tmp_path, workers=1, runtime="ray")
    # longer than Ray's period of reporting
    runtime.fit(ToyTask(toy_config(), slow_s=2.0), plan, lambda progress: None)
    wanted = (
        r"ray_gcdis_rows_total\{.*history",
        r"ray_gcdis_read_bytes_total\{.*AddTask",
        r"ray_gcdis_written_bytes_total\{.*AddTask",
        r"ray_gcdis_shard_seconds_count\{.*AddTask",
        r"ray_gcdis_shards_left\{.*AddTask",
        r"ray_gcdis_training_loss\{.*fit",
        r"ray_gcdis_training_samples_per_second\{",
        r"ray_gcdis_training_data_wait\{",
    )
    until = time.monotonic() + 30
    while time.monotonic() < until and not all(map(scraper.saw, wanted)):
        time.sleep(1)
    scraper.over.set()
    assert [pattern for pattern in wanted if not scraper.saw(pattern)] == [], scraper.lines
