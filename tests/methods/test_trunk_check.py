"""What is refused before anything starts: models, files, sides, and what cannot learn or attend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_trunk import encoder_of, weights_in

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.trunk_check import check_trunk
from gcdis_ray.stages import embed

AT = "stages.discover.gcdis.model.encoder"


def refused(
    message: str, key: str, encoder: EncoderConfig, givers: Any = None, *, attends: bool = False
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check_trunk(encoder, givers or {}, AT, attends=attends)
    assert error.value.where == f"{AT}.{key}"


def test_a_resnet_needs_nothing():
    check_trunk(EncoderConfig(body="resnet"), {}, AT, attends=True)


def test_the_body_of_stage_embed(tmp_path: Path):
    fixed = {"embeddings": embed.Config()}
    check_trunk(EncoderConfig(), fixed, AT)
    refused("the recipe has none", "body", EncoderConfig())
    refused("wavelet of stage embed has no blocks", "trainable", EncoderConfig(trainable=1), fixed)
    file = weights_in(tmp_path, "test_vit")
    of_embed = {"weights": file["weights"], "sha256": file["weights_sha256"], "input_px": 32}
    given = {"embeddings": embed.Config.model_validate({"backbone": "test_vit", **of_embed})}
    check_trunk(EncoderConfig(trainable=1), given, AT)
    refused("the last 99 cannot be taken", "trainable", EncoderConfig(trainable=99), given)


def test_a_model_of_timm(tmp_path: Path):
    check_trunk(encoder_of(tmp_path, "test_vit", trainable=1), {}, AT)
    refused("timm has no model 'test_vlt'", "body", EncoderConfig(body="test_vlt"))
    gone = encoder_of(tmp_path, "test_vit", weights="nowhere")
    refused("cannot read the weights", "weights", gone)
    with pytest.raises(ConfigError, match="set weights_sha256: "):
        check_trunk(encoder_of(tmp_path, "test_vit", weights_sha256=None), {}, AT)
    other = encoder_of(tmp_path, "test_vit", weights_sha256="0" * 64)
    refused("the config wants 000", "weights", other)
    refused("no multiple", "input_px", encoder_of(tmp_path, "test_vit", input_px=40))
    refused("has no class token", "features", encoder_of(tmp_path, "test_resnet", features="both"))


def test_attention_needs_stages_that_learn():
    whole = EncoderConfig(body="test_resnet", trainable="all", input_px=32)
    check_trunk(whole, {}, AT, attends=True)
    vit = whole.model_copy(update={"body": "test_vit"})
    refused("test_vit has none", "body", vit, attends=True)
    refused("not all of the body does", "trainable", EncoderConfig(trainable=1), attends=True)
