"""The smoke test of GPUs: its skip, its rates, and a run on a CPU without what it must not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_run import ROOT, environment

from gcdis_ray.data.samples.digits import write_scenes
from gcdis_ray.run.checks import before_run
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.run.rates import read_rates
from gcdis_ray.training.pace import Pace

SCRIPT = ROOT / "benchmarks" / "gpu_smoke.py"
ABSENT = ("ray", "deepspeed", "boto3", "botocore", "faiss", "optuna")
BLOCKED = f"""
import runpy, socket, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import importlib.util, importlib.metadata
def hidden(find):
    def found(name, *more):
        return None if name.partition(".")[0] in {ABSENT!r} else find(name, *more)
    return found
importlib.util.find_spec = hidden(importlib.util.find_spec)
sys.meta_path.insert(0, Block())
def refuse(*arguments, **options):
    raise OSError("there is no network")
socket.create_connection = socket.getaddrinfo = refuse
socket.socket.connect = refuse
sys.argv = [{str(SCRIPT)!r}, *sys.argv[1:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu_smoke

    return gpu_smoke


@pytest.mark.parametrize(
    ("version", "sees", "reason"),
    [("2.9.1", True, "torch 2.9.1 is older than 2.10"), ("2.11.0+cu130", False, "sees no GPU")],
)
def test_it_skips_in_a_line(
    smoke, monkeypatch: pytest.MonkeyPatch, version: str, sees: bool, reason: str
):
    cuda = SimpleNamespace(is_available=lambda: sees)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__=version, cuda=cuda))
    told = list[str]()
    assert smoke.main([], told.append) == 0
    assert len(told) == 1
    assert reason in told[0]


def test_rates_leave_the_start_out(smoke, tmp_path: Path):
    seen = smoke.Seen(
        seconds=30.0, training_by="gpu", rows=40, rows_s=2.0, rows_by="gpu", unit="images"
    )
    seen.trained = [
        (2, Pace(2, 8, 8.0, 0.0)),  # kernels are chosen
        (6, Pace(4, 16, 1.0, 0.5, 7_000, 0.9)),
        (10, Pace(4, 16, 3.0, 0.5, 8_000, 0.9)),
    ]
    watch = smoke.Watch("cpu")
    watch.seen = {"propose": seen, "evaluate": smoke.Seen(seconds=1.0)}
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(smoke.rates(watch, "a test")))
    found = read_rates([path]).stages
    assert (found["propose"].samples.per_s, found["propose"].samples.by) == (8.0, "gpu")
    assert (found["propose"].rows.per_s, found["propose"].rows.by) == (20.0, "gpu")
    assert found["propose"].measured.data_wait == 0.25
    assert (found["evaluate"].samples, found["evaluate"].rows) == (None, None)
    shown = smoke.table(watch).splitlines()
    assert shown[1].split() == ["propose", "30.0", "8.0", "25", "%", "20.0", "images", "gpu"]
    assert shown[-1].split() == ["all", "31.0"]


def test_what_runs_on_a_gpu_is_a_config_that_can_run(smoke, tmp_path: Path):
    write_scenes(tmp_path / "scenes", num_labeled=1, num_unlabeled=1, num_validation=1)
    config = load_config(smoke.CONFIG, [f"stages.ingest.root={tmp_path / 'scenes'}"])
    before_run(config)
    assert (config.compute.runtime, config.compute.gpus_per_worker) == ("local", 1)
    paper = load_config(ROOT / "configs" / "coco_half_lvis.yaml")
    assert config.stages.propose.detector == paper.stages.propose.detector
    assert config.stages.discover.gcdis.model == paper.stages.discover.gcdis.model
    assert config.stages.discover.gcdis.training.batch_size * 4 == 256  # a share of four GPUs


@pytest.mark.thorough
def test_all_stages_without_ray_deepspeed_or_network(tmp_path: Path):
    out = tmp_path / "rates.json"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "--cpu", "--out", str(out)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    rates = read_rates([out])
    assert not rates.estimated
    trained = {name for name, told in rates.stages.items() if told.samples}
    assert trained == {"propose", "discover", "segment"}
    mapped = {name for name, told in rates.stages.items() if told.rows}
    assert mapped == {"ingest", "propose", "crop", "embed", "discover", "label", "predict"}
    assert {told.rows.by for told in rates.stages.values() if told.rows} == {"cpu"}
    assert "samples/s" in done.stdout
