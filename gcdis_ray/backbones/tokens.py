"""Vision transformers that see an image as a row of patches at one scale: ViT, DeiT, EVA, DINO."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gcdis_ray.backbones.backbone import Backbone, Tail


def is_tokens(net: Any) -> bool:
    """Whether a timm network is one of these."""
    return (
        hasattr(net, "num_prefix_tokens")
        and hasattr(net, "blocks")
        and hasattr(net, "forward_intermediates")
        and hasattr(getattr(net, "patch_embed", None), "patch_size")
    )


class TokenBackbone(Backbone):
    """Position embeddings are interpolated to the images given, by timm, in every forward pass: the
    stored ones stay those of the weights."""

    def __init__(self, name: str, net: Any, input_px: int, mean: Any, std: Any) -> None:
        super().__init__(name, net, input_px, mean, std)
        self.patch = int(net.patch_embed.patch_size[0])
        self.num_features, self.num_blocks = int(net.num_features), len(net.blocks)
        self.has_class = getattr(net, "cls_token", None) is not None

    def tokens(self, images_N3HW: Tensor) -> tuple[Tensor | None, Tensor]:
        net: Any = self.net
        (found,) = net.forward_intermediates(
            self.normalised(images_N3HW),
            indices=1,
            return_prefix_tokens=True,
            norm=True,
            intermediates_only=True,
        )
        map_NChw, prefix_NTC = found if isinstance(found, tuple) else (found, None)
        return (prefix_NTC[:, 0] if self.has_class else None), map_NChw

    def keys(self, images_N3HW: Tensor) -> Tensor:
        net: Any = self.net
        attention = getattr(net.blocks[-1], "attn", None)
        if attention is None or not (hasattr(attention, "qkv") or hasattr(attention, "k_proj")):
            return super().keys(images_N3HW)
        seen: list[Tensor] = []
        hook = attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.tokens(images_N3HW)
        finally:
            hook.remove()
        heads = attention.num_heads
        keys_NTHd = _keys(attention, seen[0]).unflatten(-1, (heads, -1))
        keys_NHTd = attention.k_norm(keys_NTHd.transpose(1, 2))
        return keys_NHTd[:, :, net.num_prefix_tokens :]

    def split(self, last: int) -> tuple[nn.Module, Tail]:
        self.check_last(last)
        net: Any = self.net
        if not hasattr(net, "_pos_embed") or getattr(net, "rope_mixed", False):
            raise self.cannot("cannot be taken apart into blocks", "use a plain ViT, or all of it")
        front = _Front(self, self.num_blocks - last)
        return front, _Tail(self, self.num_blocks - last)


class _Front(nn.Module):
    """Images -> tokens (N, T, C) before a block, class token and registers first."""

    def __init__(self, whole: TokenBackbone, count: int) -> None:
        super().__init__()
        self._whole, self.count = [whole], count  # in a list: its modules are not all of the front
        net: Any = whole.net
        self.patch_embed, self.norm_pre = net.patch_embed, net.norm_pre
        self.blocks = nn.ModuleList(net.blocks[:count])

    def forward(self, images_N3HW: Tensor) -> Tensor:
        (whole,) = self._whole
        net: Any = whole.net
        x = net._pos_embed(self.patch_embed(whole.normalised(images_N3HW)))
        x = self.norm_pre(x[0] if isinstance(x, tuple) else x)
        for block in self.blocks:
            x = _block(net, block, x)
        return x


class _Tail(Tail):
    def __init__(self, whole: TokenBackbone, count: int) -> None:
        super().__init__()
        self._whole = [whole]
        net: Any = whole.net
        self.blocks, self.norm = nn.ModuleList(net.blocks[count:]), net.norm

    def tokens(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        (whole,) = self._whole
        net: Any = whole.net
        for block in self.blocks:
            x = _block(net, block, x)
        x = self.norm(x)
        patches_NPC = x[:, net.num_prefix_tokens :]
        side = math.isqrt(patches_NPC.shape[1])
        map_NChw = patches_NPC.transpose(1, 2).unflatten(2, (side, side))
        return (x[:, 0] if whole.has_class else None), map_NChw


def _block(net: Any, block: nn.Module, x_NTC: Tensor) -> Tensor:
    """One block; images are square, so the grid of a rotary embedding follows from the tokens."""
    rope = getattr(net, "rope", None)
    if rope is None:
        return block(x_NTC)
    side = math.isqrt(x_NTC.shape[1] - net.num_prefix_tokens)
    return block(x_NTC, rope=rope.get_embed(shape=(side, side)))


def _keys(attention: Any, x_NTC: Tensor) -> Tensor:
    """What an attention compares its queries with: (N, T, heads * d)."""
    if getattr(attention, "k_proj", None) is not None:
        return attention.k_proj(x_NTC)
    weight = attention.qkv.weight.chunk(3)[1]
    bias = attention.qkv.bias
    return F.linear(x_NTC, weight, None if bias is None else bias.chunk(3)[1])


class SimplePyramid(nn.Module):
    """Four maps of strides 4, 8, 16 and 32 px from a ViT's last one (Li et al. 2022, "Exploring
    Plain Vision Transformer Backbones for Object Detection", section 3).

    A patch counts as the power of two px that is nearest: images are scaled by patch over that, so
    that the strides hold whatever the patch, and any image of whole 32 px fits.
    """

    STRIDES = (4, 8, 16, 32)

    def __init__(self, backbone: TokenBackbone) -> None:
        super().__init__()
        self.base = min(self.STRIDES, key=lambda s: abs(math.log2(s / backbone.patch)))
        self.scale, width = backbone.patch / self.base, backbone.num_features
        self.levels = nn.ModuleList(_level(width, self.base, stride) for stride in self.STRIDES)
        self.channels = tuple(_channels(width, self.base, stride) for stride in self.STRIDES)

    def resized(self, images_N3HW: Tensor) -> Tensor:
        """Images in which a patch shows ``base`` px of those given."""
        if self.scale == 1:
            return images_N3HW
        size = [round(side * self.scale) for side in images_N3HW.shape[2:]]
        return F.interpolate(images_N3HW, size, mode="bilinear", antialias=True)

    def forward(self, map_NChw: Tensor) -> list[Tensor]:
        return [level(map_NChw) for level in self.levels]


def _channels(width: int, base: int, stride: int) -> int:
    return max(width * stride // base, 16) if stride < base else width


def _level(width: int, base: int, stride: int) -> nn.Module:
    """From stride ``base`` to ``stride``: transposed convolutions upwards, pooling downwards."""
    if stride >= base:
        return nn.MaxPool2d(stride // base) if stride > base else nn.Identity()
    layers: list[nn.Module] = []
    at, channels = base, width
    while at > stride:
        at //= 2
        out = _channels(width, base, at)
        if layers:
            layers += [nn.GroupNorm(1, channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, out, 2, stride=2))
        channels = out
    return nn.Sequential(*layers)
