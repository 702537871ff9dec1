"""Networks that halve the map from stage to stage: CNNs, and transformers built like them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from gcdis_ray.backbones.backbone import Backbone, Gate, StageShape, Tail
from gcdis_ray.backbones.modes import in_eval

_FIRST_STRIDE = 4
_SIDE_PX = 64  # of what the parts are compared on
_HEAD = ("global_pool", "head", "head_drop", "fc", "classifier", "fc_norm")


class StagedBackbone(Backbone):
    """timm computes such a network part after part, in the order of its modules. That is looked at
    before it is relied on: :meth:`walk` and :meth:`split` compare the parts with the whole once.
    """

    def __init__(self, name: str, net: Any, input_px: int | None, mean: Any, std: Any) -> None:
        super().__init__(name, net, input_px, mean, std)
        self._last_axis = getattr(net, "output_fmt", "NCHW") == "NHWC"
        self._parts, stages = _parts(net)
        self._stages = {part: k for k, (part, _) in enumerate(stages)}
        self.stages = tuple(shape for _, shape in stages)
        self._blocks = _blocks(self._parts, self._stages)
        self.num_features, self.num_blocks = int(net.num_features), len(self._blocks)
        self._checked = False

    def tokens(self, images_N3HW: Tensor) -> tuple[Tensor | None, Tensor]:
        net: Any = self.net
        return None, self._front(net.forward_features(self.normalised(images_N3HW)))

    def walk(
        self, images_N3HW: Tensor, gate: Gate | None, to_end: bool = True
    ) -> tuple[list[Tensor], Tensor]:
        self._check_parts(images_N3HW)
        x, maps = self.normalised(images_N3HW), []
        for part in self._parts:
            if len(maps) == len(self.stages) and not to_end:
                break
            x = self.net.get_submodule(part)(x)
            if part in self._stages:
                found = self._front(x)
                if gate is not None:
                    found = gate(len(maps), found)
                    x = self._back(found)
                maps.append(found)
        return maps, self._front(x)

    def freeze(self, stages: int) -> None:
        if not stages:
            return
        if stages > len(self.stages):
            raise self.cannot(f"has {len(self.stages)} stages, not {stages}", "freeze fewer")
        last = next(part for part, k in self._stages.items() if k == stages - 1)
        for part in self._parts[: self._parts.index(last) + 1]:
            self.net.get_submodule(part).requires_grad_(False)

    def split(self, last: int) -> tuple[nn.Module, Tail]:
        self.check_last(last)
        side = self.input_px or _SIDE_PX
        self._check_parts(self.input_mean.new_zeros(1, 3, side, side))
        at = len(self._parts)
        if self._blocks:
            after = self._parts.index(self._blocks[-1]) + 1
            at = self._parts.index(self._blocks[-last]) if last else after
        return _Front(self, self._parts[:at]), _Tail(self, self._parts[at:])

    def _check_parts(self, images_N3HW: Tensor) -> None:
        """Raises ConfigError: the parts, one after another, are not the network."""
        if self._checked or images_N3HW.is_meta:
            return
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((1, *images_N3HW.shape[1:]), generator=generator).to(images_N3HW)
        with in_eval(self), torch.no_grad():
            want = self.tokens(images)[1]
            try:
                x = self.normalised(images)
                for part in self._parts:
                    x = self.net.get_submodule(part)(x)
                same = torch.allclose(self._front(x), want, rtol=1e-3, atol=1e-4)
            except (RuntimeError, TypeError, AttributeError):
                same = False
        if not (same and self._stages):
            raise self.cannot("cannot be taken apart into stages", "use it whole, or another one")
        self._checked = True

    def _front(self, x: Tensor) -> Tensor:
        """Channels to the front."""
        return x.permute(0, 3, 1, 2) if self._last_axis else x

    def _back(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) if self._last_axis else x


class _Front(nn.Module):
    def __init__(self, whole: StagedBackbone, parts: list[str]) -> None:
        super().__init__()
        self._whole = [whole]  # in a list: its modules are not all of the front
        self.parts = nn.Sequential(*(whole.net.get_submodule(part) for part in parts))

    def forward(self, images_N3HW: Tensor) -> Tensor:
        return self.parts(self._whole[0].normalised(images_N3HW))


class _Tail(Tail):
    def __init__(self, whole: StagedBackbone, parts: list[str]) -> None:
        super().__init__()
        self._whole = [whole]
        self.parts = nn.Sequential(*(whole.net.get_submodule(part) for part in parts))

    def tokens(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        return None, self._whole[0]._front(self.parts(x))


def _parts(net: Any) -> tuple[list[str], list[tuple[str, StageShape]]]:
    """Names of the modules that an image goes through, and those whose output is a stage's map."""
    told = getattr(net, "feature_info", None) or []
    told = [t for t in (told if isinstance(told, list) else told.info) if t.get("module")]
    containers = Counter(t["module"].rpartition(".")[0] for t in told)
    parts: list[str] = []
    for name, module in net.named_children():
        if name in _HEAD:
            break
        if containers[name] > 1 and isinstance(module, nn.Sequential | nn.ModuleList):
            parts += [f"{name}.{child}" for child, _ in module.named_children()]
        else:
            parts.append(name)
    stages = [
        (t["module"], StageShape(int(t["num_chs"]), int(t["reduction"])))
        for t in told
        if t["module"] in parts and t["reduction"] >= _FIRST_STRIDE
    ]
    return parts, stages


def _blocks(parts: list[str], stages: dict[str, int]) -> list[str]:
    """The parts that learn block by block: those in a container, else the stages."""
    return [part for part in parts if "." in part] or list(stages)
