"""Weights files as tensors in timm's names. Nothing in a file can run code."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from gcdis_ray.errors import ConfigError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher")
_PREFIXES = ("module.", "backbone.")


def read_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """Tensors of a safetensors file, or of a torch file that holds nothing else.

    Training scripts wrap them: in an entry ``state_dict``, ``model`` or ``teacher``, with names
    that begin with ``module.`` or ``backbone.``. That is undone where only one reading is possible.

    Raises:
        ConfigError: neither kind of file; objects beside the tensors; more than one wrapper.
    """
    if _is_safetensors(data):
        try:
            return _unprefixed(safetensors.torch.load(data))
        except SafetensorError as error:
            raise ConfigError(f"a damaged safetensors file ({error})", where=where) from error
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # a file can be broken, or refused, in many ways
        raise ConfigError(
            "neither a safetensors file nor a torch file of tensors alone "
            f"({str(error).strip().splitlines()[0][:120]})",
            where=where,
            fix="save the network's state_dict with safetensors.torch.save_file",
        ) from error
    return _unprefixed(_unwrapped(loaded, where))


def fitted(
    tensors: Mapping[str, Tensor], net: nn.Module, model: str, where: str
) -> dict[str, Tensor]:
    """The tensors that a timm network without classifier wants, in float32 and in its order.

    Names as the authors of the weights gave them, and other position grids, are put right by timm.

    Args:
        net: perhaps on the meta device.

    Raises:
        ConfigError: a tensor is missing, too many or of another shape.
    """
    expected = net.state_dict()
    kept = _without_classifier(tensors, net, expected)
    if not _names_fit(kept, expected) or _shape_of(kept, expected):
        kept = _filtered(dict(tensors), net)
        kept = _without_classifier(kept, net, expected)
    for name, value in expected.items():  # counters of training steps mean nothing here
        if name.endswith("num_batches_tracked"):
            kept.setdefault(name, torch.zeros((), dtype=value.dtype))
    if why := _first_difference(kept, expected):
        raise ConfigError(
            f"these are not weights of {model}: {why}",
            where=where,
            fix="name the model that the weights were trained in",
        )
    return {
        name: kept[name].float() if expected[name].is_floating_point() else kept[name]
        for name in expected
    }


def in_order(
    tensors: Mapping[str, Tensor], net: nn.Module, model: str, classifier: str, where: str
) -> dict[str, Tensor]:
    """Tensors under other names that follow one another as the network's: paired by place, each
    pair of one shape, and with names that end alike.

    Raises:
        ConfigError: a pair differs.
    """
    expected = net.state_dict()
    given = [item for item in tensors.items() if not item[0].startswith(classifier)]
    if len(given) != len(expected):
        raise ConfigError(
            f"these are not weights of {model}: {len(given)} tensors, not {len(expected)}",
            where=where,
        )
    found = {}
    for (theirs, value), (ours, wanted) in zip(given, expected.items(), strict=True):
        if value.shape != wanted.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
            raise ConfigError(
                f"these are not weights of {model}: {theirs} {tuple(value.shape)} in place of "
                f"{ours} {tuple(wanted.shape)}",
                where=where,
            )
        found[ours] = value
    return found


def _is_safetensors(data: bytes) -> bool:
    length = int.from_bytes(data[:8], "little")
    return 2 <= length <= len(data) - 8 and data[8:9] == b"{"


def _unwrapped(loaded: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"a {type(loaded).__name__}, not tensors by name", where=where)
    if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
        return dict(loaded)
    wrapped = [name for name in _WRAPPERS if isinstance(loaded.get(name), Mapping)]
    if len(wrapped) != 1:
        raise ConfigError(
            f"it is not certain which of its entries are the weights: {sorted(map(str, loaded))}",
            where=where,
            fix="save the network's state_dict alone",
        )
    return _unwrapped(loaded[wrapped[0]], where)


def _unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without a prefix that all names have; beside ``backbone.`` there may be heads."""
    for prefix in _PREFIXES:
        inside = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if inside and (prefix == "backbone." or len(inside) == len(tensors)):
            tensors = inside
    return tensors


def _without_classifier(
    tensors: Mapping[str, Tensor], net: Any, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    heads = (getattr(net, "pretrained_cfg", None) or {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ((heads,) if isinstance(heads, str) else heads))
    return {
        name: value
        for name, value in tensors.items()
        if name in expected or not (heads and name.startswith(heads))
    }


def _filtered(tensors: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """Through timm's own converter of published names for this kind of network, if it has one."""
    module = sys.modules[type(net).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    if convert is None:
        return tensors
    try:
        return dict(convert(tensors, net))
    except (KeyError, RuntimeError, AttributeError, TypeError, IndexError, ValueError):
        return tensors  # of no kind it knows; what does not fit is named below


def _names_fit(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    return tensors.keys() | counters == expected.keys()


def _shape_of(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    for name, wanted in expected.items():
        if name in tensors and tensors[name].shape != wanted.shape:
            return f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(wanted.shape)}"
    return ""


def _first_difference(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    if missing := [name for name in expected if name not in tensors]:
        return f"{missing[0]} is missing, as are {len(missing) - 1} more of {len(expected)}"
    if extra := [name for name in tensors if name not in expected]:
        return f"{extra[0]} is none of its tensors, nor are {len(extra) - 1} more"
    return _shape_of(tensors, expected)
