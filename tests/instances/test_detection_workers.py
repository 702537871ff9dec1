"""A detector trained on one worker and on two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scene_tables import TINY, rectangle_scenes
from tables import SCHEMAS
from toy_training import FolderCheckpoints, digests, toy_plan
from two_workers import run_in_two

from gcdis_ray.config import TrainingConfig
from gcdis_ray.instances.proposing import ProposingTask
from gcdis_ray.instances.training_images import ImageAugmentConfig
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.meter import metering
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage
from gcdis_ray.training.loop import train

STEPS = 4
TRAINING = {"steps": STEPS, "batch_size": 4, "micro_batches": 2, "lr": 0.01}


def trained(rank: int, folder: str) -> None:
    """A rank's share; leaves hashes of what was made and how many bytes the rank has read."""
    scenes = rectangle_scenes(["labeled"] * 4, per_shard=12)
    attempt = Attempt(LocalStorage(f"{folder}/images{rank}"), "a/b", "attempt-1", SCHEMAS)
    records = [attempt.table("images", s, i) for i, s in enumerate(scenes.images.iter_shards())]
    opener = ArtifactOpener(attempt.storage, attempt.base, SCHEMAS)
    task = ProposingTask(
        config=TrainingConfig.model_validate(TRAINING),
        seed=0,
        detector=TINY,
        augment=ImageAugmentConfig(),
        cache_mb=16,
        images=Table("images", tuple(records), opener),
        instances=scenes.instances,
    )
    checkpoints = FolderCheckpoints(Path(folder) / "kept", save=False)
    with metering() as meter:
        members = train(task, toy_plan(folder), checkpoints, torch.device("cpu"), lambda p: None)
    told = {"members": digests(members), "read_bytes": meter.read_bytes}
    Path(folder, f"{rank}.json").write_text(json.dumps(told))


@pytest.mark.thorough
def test_two_workers_equal_one_and_each_reads_its_own_images(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    trained(0, str(one))
    run_in_two(trained, two)
    alone = json.loads((one / "0.json").read_text())
    ranks = [json.loads((two / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert alone["members"].keys() == {"proposer", "history"}
    assert ranks[0]["members"] == alone["members"]
    assert ranks[1]["members"] == {}
    assert max(rank["read_bytes"] for rank in ranks) < alone["read_bytes"]
