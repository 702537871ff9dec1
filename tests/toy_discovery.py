"""A tiny discovery task on a few random crops, and the training loop in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from gcdis_ray.config import TrainingConfig
from gcdis_ray.methods.discovery_model import DiscoveryModel, build_discovery_model
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.model import attention_of
from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk import Trunk, build_encoder, resnet_trunk
from gcdis_ray.store.schemas import CROPS

MODEL = ModelConfig.model_validate(
    {
        "encoder": {
            "body": "resnet",
            "input_px": 16,
            "blocks": [1, 1],
            "widths": [8, 16],
            "stem_width": 8,
        },
        "heads": {"projection_hidden": 16, "projection_dim": 8},
    }
)
SETTINGS = {
    "momentum": 0.9,
    "queue_size": 21,
    "cache_px": 20,
    "losses": {"clustering_from": 0.4, "balance": 0.5},
    "prototypes": {"start": "linkage", "restarts": 2},
    "augment": {"rotation_deg": 20, "noise": 0.05, "elastic": 0.1},
}


def spec_of(model: ModelConfig, num_classes: int) -> dict[str, Any]:
    """What a method of that model, on a resnet, stores beside tensors."""
    return dict(
        model=model.stored(),
        trunk=resnet_trunk(model.encoder, 16).spec.model_dump(mode="json"),
        num_classes=num_classes,
        softmax_temperature=0.1,
    )


def fresh_model(model: ModelConfig, num_classes: int) -> DiscoveryModel:
    encoder = build_encoder(resnet_trunk(model.encoder, 16).spec, attention=attention_of(model))
    return build_discovery_model(encoder, model.heads, num_classes)


class Crops:
    """Stands in for the table ``crops``."""

    def __init__(self, labels: Sequence[int]) -> None:
        rng, rows = np.random.default_rng(0), []
        for index, label in enumerate(labels):
            side = int(rng.integers(14, 26))
            image, mask = rng.integers(0, 255, (side, side, 3)), np.zeros((side, side))
            mask[3 : 3 + side // 2, 2 : 2 + side // 2] = 255
            image[mask > 0] = (40 * (label % 5), 90, 200)
            rows.append(
                dict(
                    crop_index=index,
                    image_id=index // 3,
                    source_id=index,
                    class_index=label,
                    window_xyxy=[0, 0, side, side],
                    bbox_xyxy=[0.0, 0.0, side, side],
                    jpeg=cv2.imencode(".jpg", image)[1].tobytes(),
                    mask_png=cv2.imencode(".png", mask)[1].tobytes(),
                )
            )
        self.table = pa.Table.from_pylist(rows, schema=CROPS)

    @property
    def num_rows(self) -> int:
        return self.table.num_rows

    @property
    def digest(self) -> str:
        return f"toys {self.table['class_index'].to_pylist()}"

    def iter_shards(self, columns, *, ahead: int = 0) -> Iterator[pa.Table]:
        return iter([self.table.select(columns)])


class AllParts:
    def rows(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part.detach() for part in parts])


def make(
    labels: Sequence[int],
    steps: int = 6,
    *,
    training: Mapping[str, Any] | None = None,
    num_classes: int = 4,
    snapshot_steps: Sequence[int] | None = None,
    hold_out: HoldOut | None = None,
    measure_every: int = 0,
    placed: Sequence[int] | None = None,
    trunk: Trunk | None = None,
    **changes: Any,
) -> DiscoveryTask:
    """A task, on a resnet if no other trunk is given; ``changes`` replace sections of the discovery
    config (and ``model``)."""
    values = {"steps": steps, "batch_size": 12, "micro_batches": 2, "lr": 0.05}
    settings = {**SETTINGS, **changes}
    model = settings.pop("model", MODEL)
    discovery = DiscoveryConfig.model_validate(settings)
    problem = Problem(
        crops=Crops(labels),  # type: ignore[arg-type]
        num_known=2,
        num_outputs=num_classes,
        seed=5,
        hold_out=hold_out,
        measure_every=measure_every,
        placed_N=None if placed is None else np.array(placed),
    )
    return DiscoveryTask(
        problem,
        TrainingConfig.model_validate({**values, **(training or {})}),
        model,
        discovery,
        trunk or resnet_trunk(model.encoder, discovery.cache_px),
        snapshot_steps=[steps] if snapshot_steps is None else snapshot_steps,
    )


class Run:
    """The training loop in a few lines: parts one after another."""

    def __init__(self, task: Any) -> None:
        torch.manual_seed(task.seed)
        self.task, self.module = task, task.setup(torch.device("cpu"))
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.05, momentum=0.9)

    def parts(self, step: int) -> Sequence[dict[str, Any]]:
        """What the two parts of a step learn from."""
        return self.task.prepare([self.task.batch(step, p) for p in (0, 1)], AllParts())

    def step(self, step: int) -> dict[str, float]:
        parts = self.parts(step)
        values: dict[str, float] = {}
        for part in parts:
            losses = self.module(part)
            (losses["total"] / 2).backward()
            values |= {name: float(loss.detach()) for name, loss in losses.items()}
        self.optimizer.step()
        self.optimizer.zero_grad()
        after = self.task.after_step(step, AllParts())
        return values | {name: float(value) for name, value in after.items()}


MIXED = [0, 1, -1, 0, 1, -1, -1, -1, 0, -1, -1, 1, -1, -1, 0, -1, -1]
