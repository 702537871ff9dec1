"""Weights that timm publishes on the Hugging Face hub, from its local cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcdis_ray.errors import ConfigError

_FILES = ("model.safetensors", "pytorch_model.bin")  # the second is opened with weights_only


def hub_file(published: Any, model: str, download: bool) -> Path:
    """The file with the weights.

    Args:
        published: timm's ``PretrainedCfg`` of the model.
        download: ask the network if the file is not in the cache.

    Raises:
        ConfigError: timm publishes none; it is not in the cache, or cannot be had.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    repository = getattr(published, "hf_hub_id", None)
    if not repository:
        raise ConfigError(f"timm publishes no weights of {model} on the hub", fix="name a file")
    repository = str(repository).removeprefix("hf-hub:")
    name = getattr(published, "hf_hub_filename", None)
    files = (str(name),) if name else _FILES
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    if not download:
        raise ConfigError(
            f"weights of {model} are not in the hub's local cache ({repository}, {files[0]}), and "
            "the network is not to be asked",
            fix="set download: true, fill the cache (huggingface-cli download "
            f"{repository}), or name a weights file",
        )
    try:
        return Path(hf_hub_download(repository, files[0]))
    except (OSError, ValueError) as error:  # what the client raises derives from these
        raise ConfigError(
            f"cannot download {files[0]} of {repository}: {str(error).splitlines()[0][:200]}",
            fix="check the network, or name a weights file",
        ) from error
