"""What a network gives as the body of an embedding, an encoder or a detector, whatever its kind.

Shape letters: N images, C channels, H W pixels, h w cells of a map, P patches, d width of a head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gcdis_ray.backbones.same_padding import pad_as_tensorflow
from gcdis_ray.errors import ConfigError

Gate = Callable[[int, Tensor], Tensor]
"""``gate(stage, map)``: what the next stage sees instead of a stage's map (N, C, h, w)."""

MARKS = ("input_mean", "input_std", "same_padding")
"""Tensors beside timm's own that say how weights want their images: mean and std (3,) of RGB in
[0, 1], and whether strided convolutions pad as TensorFlow does."""


NUM_STAGES = 4  # that blocks of a ViT are counted as


class StageShape(NamedTuple):
    """One stage's map."""

    channels: int
    stride: int


class Tail(nn.Module, ABC):
    """What follows the frozen part of a network: output of the front -> last dense map."""

    @abstractmethod
    def tokens(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Class token (N, C), or None where there is none, and last dense map (N, C, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x)[1]


class Backbone(nn.Module, ABC):
    """A timm network without its classifier. Images are RGB in [0, 1], normalised inside.

    Whether batch norm takes its stored statistics is up to the caller: ``eval()`` or ``train()``.

    ``num_features``: channels of the last map. ``num_blocks``: what :meth:`split` counts: stages
    of a CNN, blocks of a transformer. ``stages``: the maps of :meth:`stage_maps`; empty where there
    are none. ``input_px``: side of the images that it was built for, None for many.
    ``has_class``: there is a class token.
    """

    input_mean: Tensor
    input_std: Tensor
    same_padding: Tensor
    num_features: int
    num_blocks: int
    stages: tuple[StageShape, ...] = ()
    input_px: int | None
    has_class = False
    constant_buffers = ("input_mean", "input_std")

    def __init__(
        self, name: str, net: nn.Module, input_px: int | None, mean: Any, std: Any
    ) -> None:
        super().__init__()
        self.name, self.net, self.input_px = name, net, input_px
        self.register_buffer("input_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("input_std", torch.tensor(std, dtype=torch.float32))
        self.register_buffer("same_padding", torch.tensor(False))
        self.register_load_state_dict_post_hook(_follow_padding)

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Load tensors of :func:`gcdis_ray.backbones.network.read_weights`."""
        marks = {name: value for name, value in tensors.items() if name in MARKS}
        kept = {f"net.{name}": value for name, value in tensors.items() if name not in MARKS}
        own = {name: value for name, value in self.state_dict().items() if name in MARKS}
        self.load_state_dict(own | kept | marks)

    def forward(self, images_N3HW: Tensor, gate: Gate | None = None) -> Tensor:
        """Last dense map, (N, C, h, w). With a gate, :meth:`stage_maps` says what it does."""
        if gate is None:
            return self.tokens(images_N3HW)[1]
        return self.walk(images_N3HW, gate)[1]

    @abstractmethod
    def tokens(self, images_N3HW: Tensor) -> tuple[Tensor | None, Tensor]:
        """Class token (N, C), or None where there is none, and last dense map (N, C, h, w)."""

    def keys(self, images_N3HW: Tensor) -> Tensor:
        """Keys of the patches in the last attention, before any rotation: (N, heads, P, d).

        Raises:
            ConfigError: the network has no such keys.
        """
        raise self.cannot("has no attention whose keys could be taken", "use a ViT")

    def stage_maps(self, images_N3HW: Tensor, gate: Gate | None = None) -> list[Tensor]:
        """The map of every stage, as many as ``stages`` has.

        Args:
            gate: what it makes of a stage's map goes on to the next stage, and is returned.

        Raises:
            ConfigError: the network has no stages.
        """
        return self.walk(images_N3HW, gate, to_end=False)[0]

    def walk(
        self, images_N3HW: Tensor, gate: Gate | None, to_end: bool = True
    ) -> tuple[list[Tensor], Tensor]:
        """:meth:`stage_maps`, and the last dense map that follows from them.

        Args:
            to_end: False: what follows the last stage is not computed.
        """
        raise self.cannot("has no stages", "use a CNN such as resnet50")

    @abstractmethod
    def freeze(self, stages: int) -> None:
        """Let the stem and the first stages learn nothing; a ViT's stage is a quarter of its
        blocks. 0: all learns.

        Raises:
            ConfigError: the network has fewer stages.
        """

    @abstractmethod
    def split(self, last: int) -> tuple[nn.Module, Tail]:
        """A front that stays as it is, images -> tensor, and the tail after it. Both share their
        modules with this network, so that what a tail learns is learned here.

        Args:
            last: so many of the last blocks are in the tail, with all that follows them; 0: only
                what follows the last block.

        Raises:
            ConfigError: more than ``num_blocks``, or the network cannot be taken apart.
        """

    def normalised(self, images_N3HW: Tensor) -> Tensor:
        """Images as the weights know them."""
        mean, std = (value.view(1, 3, 1, 1) for value in (self.input_mean, self.input_std))
        return (images_N3HW - mean) / std

    def check_last(self, last: int) -> None:
        if not 0 <= last <= self.num_blocks:
            raise self.cannot(
                f"has {self.num_blocks} blocks, the last {last} cannot be taken",
                f"give 0 to {self.num_blocks}",
            )

    def cannot(self, what: str, fix: str) -> ConfigError:
        return ConfigError(f"backbone {self.name} {what}", fix=fix)


def _follow_padding(backbone: nn.Module, _: Any) -> None:
    """Weights say themselves how they pad, so a stored network needs no file to be rebuilt."""
    flag = backbone.get_buffer("same_padding")
    if not flag.is_meta and bool(flag):
        pad_as_tensorflow(backbone.get_submodule("net"))
