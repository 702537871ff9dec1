"""Trunks of tiny random networks over a few crops in this process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from small_discovery import SHARDS, WriteCrops

from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk import Trunk, prepare_trunk
from gcdis_ray.run.work import StageWork
from gcdis_ray.store.artifacts import Table

SIDE_PX = 32
NUM = sum(map(len, SHARDS))


def weights_in(folder: Path, model: str) -> dict[str, Any]:
    """``weights`` and ``weights_sha256`` of an encoder: a file of random ones."""
    path = folder / f"{model}.safetensors"
    torch.manual_seed(0)
    save_file(build_backbone(model, None, SIDE_PX).net.state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": str(path), "weights_sha256": sha256}


def encoder_of(folder: Path, model: str, **options: Any) -> EncoderConfig:
    """On random weights."""
    return EncoderConfig.model_validate(
        {"body": model, "input_px": SIDE_PX, **weights_in(folder, model), **options}
    )


def crops_in(work: StageWork, shards: list[list[int]] = SHARDS) -> Table:
    args: list[dict[str, Any]] = [{}] * len(shards)
    return work.map_shards(WriteCrops(shards), [], gives=["crops"], args=args)["crops"]


def trunk_of(work: StageWork, crops: Table, encoder: EncoderConfig, **augment: Any) -> Trunk:
    problem = Problem(crops, num_known=2, num_outputs=5, seed=3)
    return prepare_trunk(problem, encoder, CropAugmentConfig.model_validate(augment), None, work)
