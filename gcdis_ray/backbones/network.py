"""Networks of timm by name, with or without weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor

from gcdis_ray.backbones.backbone import Backbone
from gcdis_ray.backbones.config import BackboneConfig
from gcdis_ray.backbones.folded_npz import MODEL as FOLDED_MODEL
from gcdis_ray.backbones.folded_npz import read_folded_npz
from gcdis_ray.backbones.names import check_name
from gcdis_ray.backbones.packages import weights_package
from gcdis_ray.backbones.staged import StagedBackbone
from gcdis_ray.backbones.tokens import TokenBackbone, is_tokens
from gcdis_ray.backbones.weights import fitted, in_order, read_tensors
from gcdis_ray.errors import ConfigError

_LARGEST_DEFAULT_PX = 384  # a side beyond it is for the last percent, at many times the cost
_COMMON_PX = 224
TIMM_RAISES = (
    RuntimeError,
    AssertionError,
    ValueError,
    TypeError,
    AttributeError,
    UnboundLocalError,
    LookupError,
)
"""By networks that see what they were not made for, or that are of a kind unknown here."""


def read_weights(config: BackboneConfig) -> dict[str, Tensor]:
    """Tensors in timm's names for the model, without its classifier, and beside them how the
    weights want their images (:data:`gcdis_ray.backbones.backbone.MARKS`).

    Raises:
        ConfigError: not the pinned file, not a file of tensors, or not of this model.
    """
    check_name(config.model)
    data, where = config.read_bytes(), str(config.path())
    with torch.device("meta"):
        net = _create(config.model)
    if where.endswith(".npz"):
        if config.model.partition(".")[0] != FOLDED_MODEL:
            raise ConfigError(
                f"a folded npz file holds weights of {FOLDED_MODEL}, not {config.model}",
                where=where,
                fix=f"use {FOLDED_MODEL}",
            )
        return read_folded_npz(data, net.state_dict(), net.bn1.eps, where)
    tensors = read_tensors(data, where)
    if config.weights == "package":
        package = weights_package(config.model)
        tensors = in_order(tensors, net, config.model, package.classifier, where)
        mean, std = [package.mean] * 3, [package.std] * 3
    else:
        tensors = fitted(tensors, net, config.model, where)
        mean, std = _normalisation(net)
    return tensors | {"input_mean": torch.tensor(mean), "input_std": torch.tensor(std)}


def build_backbone(
    model: str, tensors: Mapping[str, Tensor] | None, input_px: int | None
) -> Backbone:
    """A network, in train mode and with all parameters free.

    Args:
        tensors: of :func:`read_weights`; None: fresh ones from torch's generator.
        input_px: side of the images it will see. A plain ViT takes any multiple of its patch, some
            other networks take one side only. None: images of many sides.

    Raises:
        ConfigError: an unknown name, or a network that cannot take such images.
    """
    check_name(model)
    net: Any = _create(model)
    kind = TokenBackbone if is_tokens(net) else StagedBackbone
    backbone = kind(model, net, input_px, *_normalisation(net))
    if tensors is not None:
        backbone.take(tensors)
    _fit_side(backbone, input_px)
    return backbone


def default_side(model: str) -> int:
    """Side in px of the images that a model was trained on; 224 where that is beyond 384."""
    check_name(model)
    from gcdis_ray.backbones.names import published

    side = int(published(model).input_size[-1])
    if side <= _LARGEST_DEFAULT_PX:
        return side
    return _COMMON_PX


def check_side(model: str, input_px: int) -> Backbone:
    """The network on the meta device: nothing is computed.

    Raises:
        ConfigError: it cannot take images of this side, or makes no map of them.
    """
    check_name(model)
    with torch.device("meta"):
        try:
            backbone = build_backbone(model, None, input_px)
            shape = backbone.eval()(torch.zeros(1, 3, input_px, input_px)).shape
        except TIMM_RAISES as error:
            raise ConfigError(
                f"backbone {model} cannot take images of {input_px} px: {str(error)[:120]}",
                fix=f"use {default_side(model)}, which it was trained on, or another network",
            ) from error
    if len(shape) != 4 or shape[1] != backbone.num_features:
        raise backbone.cannot("gives no map of features", "use a CNN or a plain ViT")
    return backbone


def check_parts(model: str, input_px: int | None) -> None:
    """Try out, with fresh weights, whether a network comes apart as :meth:`Backbone.split` and
    :meth:`Backbone.stage_maps` want.

    Raises:
        ConfigError: it does not.
    """
    with torch.random.fork_rng():
        build_backbone(model, None, input_px).split(0)


def _create(model: str) -> Any:
    try:
        return timm.create_model(model, num_classes=0, dynamic_img_size=True)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return timm.create_model(model, num_classes=0)


def _normalisation(net: Any) -> tuple[list[float], list[float]]:
    return list(net.pretrained_cfg["mean"]), list(net.pretrained_cfg["std"])


def _fit_side(backbone: Backbone, input_px: int | None) -> None:
    net: Any = backbone.net
    if isinstance(backbone, TokenBackbone) and input_px and input_px % backbone.patch:
        below = max(input_px // backbone.patch, 1) * backbone.patch
        raise backbone.cannot(
            f"has patches of {backbone.patch} px, and {input_px} px is no multiple",
            f"use {below} or {below + backbone.patch} px",
        )
    own = int(net.pretrained_cfg["input_size"][-1])
    free = getattr(net, "dynamic_img_size", False) or not net.pretrained_cfg["fixed_input_size"]
    if free or input_px == own:
        return
    if input_px is None:
        raise backbone.cannot("takes images of one side only", "use a CNN or a plain ViT")
    try:
        net.set_input_size(img_size=(input_px, input_px))
    except (AttributeError, TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise backbone.cannot(f"takes images of {own} px only, not {input_px}", f"use {own}") from (
            error
        )
