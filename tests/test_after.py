"""The commands of ``docs/after.md``, as they stand there, one after another."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import CONFIG, ROOT

from gcdis_ray.config import apply_overrides
from gcdis_ray.run.opened import open_run

PAGE = ROOT / "docs" / "after.md"
BIN = Path(sys.executable).parent
BEFORE = "make quickstart"  # the block that only says what to start from


def blocks() -> list[str]:
    found = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    assert found.pop(0).startswith(BEFORE)
    return found


def walk(folder: Path) -> str:
    """Runs every block; gives what they printed."""
    script = "\n".join(["set -euxo pipefail", *blocks()])
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def classes(run: str, member: str = "discovered_classes") -> list[dict[str, Any]]:
    return open_run(run).artifact_with(member).json(member)


def clusters(run: str) -> dict[int, int]:
    """Crop -> class."""
    rows = open_run(run).artifact_with("partition").table("partition").read()
    return dict(zip(rows["crop_index"].to_pylist(), rows["cluster_id"].to_pylist(), strict=True))


def manifests(storage: Path) -> dict[str, list[str]]:
    """Stage -> when each of its artifacts was committed."""
    found: dict[str, list[str]] = {}
    for path in sorted(storage.glob("*/*/manifest.json")):
        found.setdefault(path.parts[-3], []).append(json.loads(path.read_text())["created"])
    return found


def check(folder: Path, before: dict[str, list[str]], said: str) -> None:
    """What holds however well or badly the run is trained."""
    runs = folder / "runs"
    after = manifests(runs / "quickstart")
    again = {stage for stage in after if len(after[stage]) > len(before[stage])}
    assert again == {"curate", "label", "segment", "predict", "evaluate"}  # and nothing before
    assert re.search(r"200 images, .*images/s", said)

    first = (runs / "predicted" / "results.json").read_bytes()
    assert first == (runs / "predicted-by-bundle" / "results.json").read_bytes()
    listed = json.loads((runs / "predicted" / "images.json").read_text())
    assert {"six", "seven"} <= {category["name"] for category in listed["categories"]}
    assert len(listed["images"]) == 200
    assert len(list((runs / "predicted" / "pictures").rglob("*.jpg"))) == 20

    exported = runs / "export"
    assert {path.name for path in exported.iterdir()} == {
        "coco", "label-studio", "fiftyone", "cvat", "yolo", "crops",
    }  # fmt: skip
    assert len(list((exported / "crops" / "six").glob("*.jpg"))) > 0
    corrected = classes(str(runs / "corrected"), "classes")
    assert sorted(row["name"] for row in corrected) == ["seven", "six"]

    old, new = classes(str(runs / "quickstart")), classes(str(runs / "continued"))
    assert [row["class_index"] for row in new[: len(old)]] == [row["class_index"] for row in old]
    assert [bool(row["known"]) for row in new[: len(old)]] == [bool(row["known"]) for row in old]
    names = [row["name"] for row in new[: len(old)]]
    assert {"six", "seven"} <= set(names)


@pytest.mark.ray
@pytest.mark.thorough
def test_the_page_s_commands_on_a_small_run(small_run, tmp_path: Path):
    """The quickstart's place is taken by the small run, whose classes mean nothing."""
    (tmp_path / "configs").mkdir()
    shutil.copy(ROOT / "configs" / "continued.yaml", tmp_path / "configs")
    config = apply_overrides(yaml.safe_load(CONFIG.read_text()), small_run.overrides)
    shutil.copytree(config["storage"], tmp_path / "runs" / "quickstart")
    shutil.copytree(config["stages"]["ingest"]["root"], tmp_path / "runs" / "digits-scenes")
    config["storage"], config["stages"]["ingest"]["root"] = "runs/quickstart", "runs/digits-scenes"
    config["name"] = "quickstart"
    (tmp_path / "configs" / "quickstart.yaml").write_text(yaml.safe_dump(config))
    shutil.rmtree(tmp_path / "runs" / "quickstart" / "runs")  # it is noted under another name
    before = manifests(tmp_path / "runs" / "quickstart")
    subprocess.run(
        [str(BIN / "gcdis"), "run", "configs/quickstart.yaml"], cwd=tmp_path, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert manifests(tmp_path / "runs" / "quickstart") == before
    check(tmp_path, before, walk(tmp_path))


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_page_s_commands_on_the_quickstart(tmp_path: Path):
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for command in ("digits runs/digits-scenes", "run configs/quickstart.yaml"):
        subprocess.run(
            [str(BIN / "gcdis"), *command.split()], cwd=tmp_path, check=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    before = manifests(tmp_path / "runs" / "quickstart")
    first = classes(str(tmp_path / "runs" / "quickstart"))
    check(tmp_path, before, walk(tmp_path))
    assert len(classes(str(tmp_path / "runs" / "quickstart"))) == len(first) - 1  # two are one
    told = json.loads(
        subprocess.run(
            [str(BIN / "gcdis"), "status", "configs/continued.yaml", "--json"], cwd=tmp_path,
            check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        ).stdout
    )  # fmt: skip
    found = {row["name"]: row for row in told["metrics"]["clusters"]}
    fresh = [row for name, row in found.items() if name.startswith("new ")]
    letter = 11  # its category; ten digits come before
    assert any(row["majority_category_id"] == letter and row["purity"] > 0.7 for row in fresh)
