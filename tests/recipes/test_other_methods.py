"""Other methods in the place of the paper's, in small, from the quickstart's artifacts to average
precision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_run import gcdis, open_pipeline

from gcdis_ray.run.pipeline import iter_status
from gcdis_ray.run.plan import describe

TRAINING = "{steps: 12, batch_size: 32}"
METHODS = {
    "simgcd": f"{{training: {TRAINING}}}",
    "uno": f"{{training: {TRAINING}, novel: {{heads: 2, over_heads: 1}}}}",
}


def _overrides(small_run, method: str, folder: Path) -> list[str]:
    """The small run's, but for discovery, on a copy of its storage."""
    was = next(o for o in small_run.overrides if o.startswith("storage=")).partition("=")[2]
    shutil.copytree(was, folder / "storage")
    kept = [
        o for o in small_run.overrides if not o.startswith(("storage=", "stages.discover.gcdis."))
    ]
    discover = f"stages.discover={{method: {method}, {method}: {METHODS[method]}}}"
    return [*kept, discover, f"storage={folder / 'storage'}"]


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_it_is_scored_like_the_papers(small_run, tmp_path: Path, method: str):
    overrides = _overrides(small_run, method, tmp_path)
    for entry in describe(open_pipeline(overrides)):
        before = entry["name"] in ("ingest", "ground_truth", "propose", "crop", "embed", "count")
        assert (entry["action"] == "run") != before
    done = gcdis("run", overrides)
    assert done.returncode == 0, done.stderr
    pipeline = open_pipeline(overrides)
    assert {stage["state"] for stage in iter_status(pipeline)} == {"done"}
    discover, evaluate = pipeline.artifact("discover"), pipeline.artifact("evaluate")
    assert discover is not None
    assert evaluate is not None
    assert discover.json("method")["name"] == method
    assert discover.has("placed")
    assert discover.has("views")  # the body of stage embed, which does not learn
    metrics = evaluate.json("metrics")
    assert set(metrics["discovery"]["accuracy"]) >= {"all", "known", "novel"}
    assert json.loads(gcdis("status", overrides, "--json").stdout)["metrics"] == metrics
    assert gcdis("report", overrides).returncode == 0
