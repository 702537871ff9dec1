"""``gcdis predict`` that is ended in the middle, or runs elsewhere: the very same files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from applied import SHARDS, images_of, predict, result_files, storage_of
from small_run import environment, here, program

import gcdis_ray
from gcdis_ray.applying import outputs
from gcdis_ray.instances import inference


@pytest.fixture(scope="module")
def expected(small_run: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    done = predict(storage_of(small_run), images_of(small_run), out, "--set", SHARDS, "--pictures")
    assert done.returncode == 0, done.stderr
    return result_files(out)


def words(small_run: Any, out: object, *more: str) -> list[str]:
    where = [storage_of(small_run), "--images", images_of(small_run), "--out", out]
    return ["predict", *map(str, where), "--set", SHARDS, "--pictures", *more]


@pytest.mark.parametrize(
    ("module", "name", "calls"),
    [
        (inference, "_rows", 5),  # in the second shard of images
        (outputs.Outputs, "_named", 1),  # while files are written
        (outputs, "draw_pictures", 0),
    ],
)
def test_ctrl_c_costs_what_is_in_flight(
    small_run: Any,
    expected: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    name: str,
    calls: int,
):
    real, count = getattr(module, name), 0

    def interrupted(*args: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise KeyboardInterrupt
        return real(*args, **more)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(module, name, interrupted)
        stopped = here(words(small_run, out, "--runtime", "local"))
    assert stopped.returncode == 130
    assert "the same command continues" in stopped.stderr
    again = here(words(small_run, out, "--runtime", "local"))
    assert ("finished earlier" in again.stderr) == (module is inference)
    assert result_files(out) == expected


@pytest.mark.thorough
def test_a_killed_process_is_gone_on_with(
    small_run: Any, expected: dict[str, bytes], tmp_path: Path
):
    out = tmp_path / "out"
    line = words(small_run, out, "--runtime", "local")
    killed = subprocess.Popen(program(line), env=environment(), stderr=subprocess.DEVNULL)
    while not list(out.glob("predict/*/attempt-*/done/*/00000.json")):
        assert killed.poll() is None, "it was over before it could be killed"
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (out / "results.json").exists()
    assert "finished earlier" in here(line).stderr
    assert result_files(out) == expected


@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_ray_gives_the_same_files(
    small_run: Any, expected: dict[str, bytes], tmp_path: Path, ray_address: str
):
    """Its driver is killed once a shard is done; another goes on."""
    out = tmp_path / "out"
    line = words(small_run, out, "--address", ray_address)
    killed = subprocess.Popen(program(line), env=environment(), stderr=subprocess.DEVNULL)
    while not list(out.glob("predict/*/attempt-*/done/*/*.json")):
        assert killed.poll() is None, "it was over before it could be killed"
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    done = subprocess.run(program(line), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert result_files(out) == expected


_SCRIPT = """
import json, sys
import torch
import gcdis_ray
torch.set_num_threads(1)
model = gcdis_ray.load(sys.argv[1], device="cpu")
found = model.predict(sys.argv[2:])
print(json.dumps([[[p.name, p.score, p.bbox_xyxy, p.mask_rle] for p in one] for one in found]))
"""


@pytest.mark.thorough
def test_a_bundle_goes_anywhere(small_run: Any, tmp_path: Path):
    """A process elsewhere, with nothing in its environment, and no run: the same predictions."""
    bundle = tmp_path / "bundle"
    assert here(["bundle", storage_of(small_run), str(bundle)]).returncode == 0
    moved, elsewhere = bundle.rename(tmp_path / "moved"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = [str(path) for path in sorted(images_of(small_run).iterdir())]
    package = str(Path(gcdis_ray.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(moved), *images],
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": package, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    here_found = gcdis_ray.load(storage_of(small_run), device="cpu").predict(images)
    told = [[[p.name, p.score, list(p.bbox_xyxy), p.mask_rle] for p in one] for one in here_found]
    assert json.loads(done.stdout) == told


def test_buckets_hold_images_and_results(
    small_run: Any, expected: dict[str, bytes], tmp_path: Path, s3_endpoint: str, monkeypatch: Any
):
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    bucket = boto3.client("s3", endpoint_url=s3_endpoint)
    for path in images_of(small_run).iterdir():
        bucket.put_object(Bucket="bucket", Key=f"new/{path.name}", Body=path.read_bytes())
    model, images, out = storage_of(small_run), "s3://bucket/new", "s3://bucket/found"
    for said in ("✓ predict", "Nothing to do"):
        done = predict(model, images, out, "--set", SHARDS, "--pictures")
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
    found = {
        name.removeprefix("found/"): bucket.get_object(Bucket="bucket", Key=name)["Body"].read()
        for page in [bucket.list_objects_v2(Bucket="bucket", Prefix="found/")]
        for name in (item["Key"] for item in page["Contents"])
    }
    for name, data in expected.items():
        if name != "summary.json":  # it has the place of the images in its digest
            assert found[name] == data, name
