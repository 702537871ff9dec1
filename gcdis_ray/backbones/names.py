"""timm's models by name, and what the names of its weights say."""

from __future__ import annotations

import difflib
import re
from typing import Any

import timm
from timm.models import get_pretrained_cfg

from gcdis_ray.backbones.config import LabelUse
from gcdis_ray.errors import ConfigError

_OLD_NAMES = {"mobilenet_v2": "mobilenetv2_100"}
_TUNED = re.compile(r"(^|_)ft_")  # on labels, whatever came before
_NO_LABELS = re.compile(r"lvd|sat493m|dino|mae|mim_|openai|laion|clip|webli|dfn|merged2b")
_LABELS = re.compile(r"(^|_)(in1k|in12k|in21k|in22k|jft|inat)")


def check_name(model: str) -> None:
    """Raise ConfigError, with the nearest names, unless timm has this model."""
    known, base = timm.list_models(), model.partition(".")[0]
    if base not in known:
        near = difflib.get_close_matches(base, known, n=3, cutoff=0.5)
        if model in _OLD_NAMES:
            near = [_OLD_NAMES[model], *near]
        raise ConfigError(
            f"timm has no model {model!r}",
            fix=f"nearest: {', '.join(dict.fromkeys(near)) or 'none'}; all: timm.list_models()",
        )
    tagged = timm.list_models(f"{base}.*", pretrained=True)
    if model != base and model not in tagged:
        raise ConfigError(
            f"timm knows no weights {model.partition('.')[2]!r} of {base}",
            fix=f"use one of {', '.join(tagged[:8])}, or {base}" if tagged else f"use {base}",
        )


def published(model: str) -> Any:
    """timm's ``PretrainedCfg`` of a model, by the tag in its name or its first weights."""
    return get_pretrained_cfg(model)


def label_use(model: str) -> LabelUse:
    """Whether timm's weights of this name learned from labels: ``True``, ``False``, ``"unknown"``.

    Captions of images count as none: they name no class of a list.
    """
    tag = getattr(published(model), "tag", None) or ""
    if _TUNED.search(tag):
        return True
    if _NO_LABELS.search(f"{model} {tag}"):
        return False
    return True if _LABELS.search(tag) else "unknown"
