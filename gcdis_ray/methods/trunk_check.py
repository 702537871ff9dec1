"""What can be wrong with an encoder's config and takes a look at files or networks to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.encoder_config import EncoderConfig

if TYPE_CHECKING:
    from gcdis_ray.backbones.config import BackboneConfig

FIXED = ("wavelet", "proposer")  # bodies of stage embed that have no blocks to train


def check_trunk(
    encoder: EncoderConfig, givers: Mapping[str, StageConfig], where: str, *, attends: bool = False
) -> None:
    """Look at what an encoder takes of files and of other stages, before anything starts.

    Args:
        givers: config of the stage that gives each member that discovery takes.
        where: key of the encoder's section.
        attends: stages are to be gated by attention.

    Raises:
        ConfigError: no stage embed to take the body from; an unknown model, weights that cannot be
            used, or a side that it cannot take; more blocks to learn than there are, or none to
            learn; attention, and no stages that learn.
    """
    if encoder.body == "resnet":
        return
    if attends and encoder.learns != "all":
        raise ConfigError(
            "attention gates stages that learn, and not all of the body does",
            where=f"{where}.trainable",
            fix="set it to all, or leave attention out",
        )
    network, side_px = encoder.backbone, encoder.side_px
    if encoder.body == "embed":
        if "embeddings" not in givers:
            raise ConfigError(
                "the body is that of stage embed, and the recipe has none",
                where=f"{where}.body",
                fix="name a timm model, or set body: resnet",
            )
        embed: Any = givers["embeddings"]
        if not hasattr(embed, "network"):
            return  # another package's stage: what it embeds by is seen when it has run
        if encoder.learns != "none" and embed.backbone in FIXED:
            raise cannot_learn(embed.backbone, where)
        network, side_px = embed.network(), embed.input_px
    else:
        assert network is not None
        _check_files(network, where)
    if network is not None:
        _check_network(network.model, side_px, encoder, where, attends)


def _check_files(network: BackboneConfig, where: str) -> None:
    try:
        network.check(where)
    except ConfigError as error:
        key = "body" if error.where == f"{where}.backbone" else "weights"
        fix = (error.fix or "").replace("set sha256", "set weights_sha256")
        raise error.at(f"{where}.{key}", fix) from error


def _check_network(
    model: str, side_px: int | None, encoder: EncoderConfig, where: str, attends: bool
) -> None:
    from gcdis_ray.backbones.frozen import feature_kind
    from gcdis_ray.backbones.network import check_parts, check_side, default_side

    key = "input_px"
    try:
        body = check_side(model, side_px or default_side(model))
        key = "features"
        feature_kind(body, encoder.features)
        key = "trainable"
        if isinstance(encoder.learns, int):
            body.check_last(encoder.learns)
            check_parts(model, body.input_px)
    except ConfigError as error:
        raise error.at(f"{where}.{key}") from error
    if attends and not body.stages:
        raise ConfigError(
            f"attention gates the stages of a CNN, and {model} has none",
            where=f"{where}.body",
            fix="name a CNN such as resnet50, or leave attention out",
        )


def cannot_learn(name: str, where: str) -> ConfigError:
    return ConfigError(
        f"{name} of stage embed has no blocks that could learn",
        where=f"{where}.trainable",
        fix="set it to none, or embed by a timm model",
    )
