"""Names that a text encoder suggests: CLIP weights of the user's and a list of names. The one home
of transformers.

Image and text lie in one space there (Radford et al. 2021): a cluster's name is looked for near the
mean of the crops that it is surest of. Nothing is downloaded, and weights are safetensors.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import io
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from gcdis_ray.errors import ConfigError
from gcdis_ray.naming.clusters import Cluster
from gcdis_ray.report.gallery import read_crops
from gcdis_ray.store.artifacts import Table

_PROMPT = "a photo of a {}"
_CROPS = 16  # of a cluster that are looked at
_SUGGESTED = 3
_BATCH = 256  # names at a time


class Namer:
    """Suggests names of clusters. Safe to ask from several threads.

    Args:
        folder: CLIP weights as transformers lays them out: ``config.json``, ``model.safetensors``
            and the files of its tokenizer and image processor.
        vocabulary: UTF-8 text, a name a line; empty lines are passed over.
        crops: table ``crops``.

    Raises:
        ConfigError: no such files, no CLIP, no name, or transformers is not installed.
    """

    def __init__(self, folder: str, vocabulary: str, crops: Table) -> None:
        self._names = _read_names(vocabulary)
        self._model, tokenizer, self._processor = _load(folder)
        self._crops, self._lock = crops, Lock()
        self._found: dict[bytes, list[str]] = {}
        parts = [
            self._text(tokenizer, self._names[start : start + _BATCH])
            for start in range(0, len(self._names), _BATCH)
        ]
        self._name_VD = torch.cat(parts)

    def __call__(self, cluster: Cluster) -> list[str]:
        """At most three names, the likeliest first."""
        with self._lock:
            if cluster.digest not in self._found:
                self._found[cluster.digest] = self._suggest(cluster)
            return self._found[cluster.digest]

    @torch.no_grad()
    def _suggest(self, cluster: Cluster) -> list[str]:
        rows = read_crops(self._crops, cluster.crops_M[:_CROPS].tolist())
        if not rows:
            return []
        images = [Image.open(io.BytesIO(row["jpeg"])).convert("RGB") for row in rows.values()]
        pixels = self._processor(images=images, return_tensors="pt")["pixel_values"]
        seen = self._model.vision_model(pixel_values=pixels).pooler_output
        direction_D = F.normalize(self._model.visual_projection(seen), dim=1).mean(dim=0)
        best = (self._name_VD @ direction_D).topk(min(_SUGGESTED, len(self._names)))
        return [self._names[place] for place in best.indices.tolist()]

    @torch.no_grad()
    def _text(self, tokenizer: Any, names: list[str]) -> Tensor:
        """(V, D) of length 1."""
        prompts = [_PROMPT.format(name) for name in names]
        tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
        read = self._model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return F.normalize(self._model.text_projection(read), dim=1)


def _read_names(path: str) -> list[str]:
    where = f"--vocabulary {path}"
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError(what, where=where, fix="give a text file, a name a line") from error
    names = list(dict.fromkeys(filter(None, map(str.strip, lines))))
    if not names:
        raise ConfigError("no name is in it", where=where, fix="write a name a line")
    return names


def _load(folder: str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor."""
    where = f"--text-encoder {folder}"
    try:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel
    except ImportError as error:
        raise ConfigError(
            "transformers is not installed", where=where, fix="pip install 'transformers>=5'"
        ) from error
    for name in ("config.json", "model.safetensors"):
        if not Path(folder, name).is_file():
            raise ConfigError(
                f"it has no {name}",
                where=where,
                fix="name a folder that CLIPModel.save_pretrained wrote, or a copy of a hub's",
            )
    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = CLIPImageProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"cannot be read as CLIP: {line}", where=where) from error
    return model.eval(), tokenizer, processor
