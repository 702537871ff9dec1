"""Vision transformers that see an image as a row of patches at one scale: ViT, DeiT, EVA, DINO."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcdis_ray.backbones.backbone import NUM_STAGES, Backbone, Tail
from gcdis_ray.backbones.modes import in_eval


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
    stored ones stay those of the weights. Before it is taken apart, its blocks, one after another,
    are compared with the whole once."""

    def __init__(self, name: str, net: Any, input_px: int | None, mean: Any, std: Any) -> None:
        super().__init__(name, net, input_px, mean, std)
        self.patch = int(net.patch_embed.patch_size[0])
        self.num_features, self.num_blocks = int(net.num_features), len(net.blocks)
        self.has_class = getattr(net, "cls_token", None) is not None
        self._checked = False

    def tokens(self, images_N3HW: Tensor) -> tuple[Tensor | None, Tensor]:
        net: Any = self.net
        (found,) = net.forward_intermediates(
            self.normalised(images_N3HW),
            indices=1,
            return_prefix_tokens=True,
            norm=True,
            intermediates_only=True,
        )
        map_NChw, prefix_NTC = found if self.has_class else (_first(found), None)
        return (None if prefix_NTC is None else prefix_NTC[:, 0]), map_NChw

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

    def freeze(self, stages: int) -> None:
        net: Any = self.net
        if stages:
            net.requires_grad_(False)
            first = stages * self.num_blocks // NUM_STAGES
            net.blocks[first:].requires_grad_(True)
            net.norm.requires_grad_(True)

    def split(self, last: int) -> tuple[nn.Module, Tail]:
        self.check_last(last)
        self._check_parts()
        front = _Front(self, self.num_blocks - last)
        return front, _Tail(self, self.num_blocks - last)

    def _check_parts(self) -> None:
        """Raises ConfigError: the blocks, one after another, are not the network."""
        if self._checked or self.input_mean.is_meta:
            return
        side = self.input_px or 2 * self.patch
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((1, 3, side, side), generator=generator).to(self.input_mean)
        with in_eval(self), torch.no_grad():
            want = self.tokens(images)[1]
            try:
                found = _Tail(self, 0)(_Front(self, 0)(images))
                same = torch.allclose(found, want, rtol=1e-3, atol=1e-4)
            except (RuntimeError, TypeError, AttributeError):
                same = False
        if not same:
            raise self.cannot("cannot be taken apart into blocks", "use a plain ViT, or all of it")
        self._checked = True


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
        if (rope := getattr(net, "rope", None)) is not None:
            self.rope = rope  # has no weights, and moves along

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


def _first(found: Any) -> Tensor:
    """The map, which timm gives alone where there are no tokens before the patches."""
    return found[0] if isinstance(found, tuple) else found


def _keys(attention: Any, x_NTC: Tensor) -> Tensor:
    """What an attention compares its queries with: (N, T, heads * d)."""
    if getattr(attention, "k_proj", None) is not None:
        return attention.k_proj(x_NTC)
    weight = attention.qkv.weight.chunk(3)[1]
    bias = attention.qkv.bias
    return F.linear(x_NTC, weight, None if bias is None else bias.chunk(3)[1])
