"""What of a module's buffers crosses the network in a step: running statistics alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_heads
from torch import Tensor, nn
from toy_discovery import MIXED, make
from toy_training import ToyModule, ToyTask, toy_config, toy_plan

from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.backbones.norms import frozen_batch_norm
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.methods.discovery_model import build_discovery_model
from gcdis_ray.methods.gcdis.model import attention_of
from gcdis_ray.methods.trunk import build_encoder, resnet_trunk
from gcdis_ray.methods.uno.config import Config as UnoConfig
from gcdis_ray.methods.uno.task import UnoTask
from gcdis_ray.models.heads import CosineClassifier
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.buffers import moving_buffers
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.loop import TrainingRun

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def moving(module: nn.Module) -> list[str]:
    """Names of what moves."""
    found = {id(buffer) for buffer in moving_buffers(module)}
    return [name for name, buffer in module.named_buffers() if id(buffer) in found]


class Odd(nn.Module):
    constant_buffers = ("table",)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(3))
        self.register_buffer("lent", torch.zeros(3), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))  # of whoever does not say: it may move


def test_running_statistics_move_and_constants_do_not():
    assert moving(ToyModule()) == ["net.1.running_mean", "net.1.running_var"]
    assert moving(ToyModule().eval()) == []
    assert moving(Odd()) == ["mean"]
    assert moving(CosineClassifier(4, 3)) == []
    assert list(CosineClassifier(4, 3).state_dict()) == ["weight", "offset"]  # as it is stored
    body = build_backbone("resnet18", None, None)
    assert len(moving(body)) == 2 * 20
    frozen_batch_norm(body.net)
    assert moving(body) == []


RANDOM: dict[str, Any] = {"prototypes": {"start": "random"}}
NORMED = (8 + 2 * 8 + 3 * 16) + (13 + 25) + (16 + 2 * 16)
"""Channels of the small network's batch norms: in its blocks, its gates and its heads."""


class Counted:
    """An exchange that notes the bytes of what every rank has in the end."""

    def __init__(self, whole: Any) -> None:
        self._whole, self.sizes = whole, list[tuple[int, ...]]()
        self.num_bytes = 0

    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        found = self._whole.rows(parts)
        self.sizes.append(tuple(found.shape))
        self.num_bytes += found.numel() * found.element_size()
        return found


def one_step(task: Any, folder: Path) -> Counted:
    plan = toy_plan(folder, checkpoint_every_s=86400)
    checkpoints = StoredCheckpoints(open_storage(plan.scratch_uri), plan.run)
    run = TrainingRun(task, plan, checkpoints, torch.device("cpu"), lambda progress: None)
    run.exchange = exchange = Counted(run.exchange)  # type: ignore[assignment]
    run.step(0, [task.batch(0, part) for part in range(task.config.micro_batches)])
    return exchange


@pytest.mark.parametrize(
    ("task", "row"),
    [
        # a number of the clock; losses; means and variances of batch norms
        (lambda: ToyTask(toy_config()), 1 + 2 + 2 * 16),
        (lambda: make(MIXED, **RANDOM), 1 + 7 + 2 * NORMED),
        (lambda: make(MIXED, num_classes=9, **RANDOM), 1 + 7 + 2 * NORMED),
        # UNO has five heads, and remembers their losses in a buffer
        (lambda: toy_heads.make(UnoTask, UnoConfig), 1 + 2 + 5 + 2 * (6 + 5 * (16 + 16))),
    ],
    ids=["toy", "gcdis", "gcdis, more classes", "uno"],
)
def test_a_part_sends_its_losses_and_running_statistics(tmp_path: Path, task: Any, row: int):
    assert (2, row) in one_step(task(), tmp_path).sizes


def test_bytes_of_a_step(tmp_path: Path):
    """All of them, of the small network: 2 parts of 6 crops, keys of 8 numbers, 4 classes."""
    sent = one_step(make(MIXED, **RANDOM), tmp_path)
    rows = 2 * 4 * (1 + 7 + 2 * NORMED)  # see above
    keys = 12 * (4 * 8 + 8 + 8)  # with label and number of the crop
    targets, headness = 12 * 4 * 4, 12 * 4
    assert sent.num_bytes == rows + keys + targets + headness


@pytest.mark.parametrize(("config", "classes"), [("coco_half_lvis", 1203), ("objects365", 365)])
def test_bytes_of_a_step_in_the_settings_of_papers(config: str, classes: int):
    """At 1,203 classes 1.2 MB, where the head's constant would add 39. Detectors send no buffer."""
    stages = load_config(CONFIGS / f"{config}.yaml").stages
    gcdis = stages.discover.gcdis
    parts = gcdis.training.micro_batches
    with torch.device("meta"):
        spec = resnet_trunk(gcdis.model.encoder, 256).spec
        encoder = build_encoder(spec, attention=attention_of(gcdis.model))
        model = build_discovery_model(encoder, gcdis.model.heads, classes)
        detector = build_mask_rcnn(stages.propose.detector, classes, 0)
        frozen = {"weights": "hub", "norm": "frozen_batch", "backbone": "resnet18"}
        frozen = build_mask_rcnn(_without_file(frozen), classes, 0)
    floats = sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())
    found = sum(buffer.numel() for buffer in moving_buffers(model))
    in_heads, in_gates, in_resnet_50 = 3 * 2048, 5764, 26_560
    assert found == floats - classes * 2048 == 2 * (in_heads + in_gates + in_resnet_50)
    assert 4 * parts * found == 1_230_976  # bytes
    assert moving_buffers(detector.train()) == moving_buffers(frozen.train()) == []


def _without_file(changes: dict[str, Any]) -> DetectorConfig:
    config = DetectorConfig.model_validate({"anchor_sizes_px": [32, 64, 128, 256], **changes})
    return config.model_copy(update={"weights": None})
