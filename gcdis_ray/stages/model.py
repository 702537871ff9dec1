"""model: a trained segmenter from elsewhere, as members that stage predict takes.

It is copied, so that workers read it from the storage of the run, wherever it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gcdis_ray.config import ENDPOINT, StageConfig
from gcdis_ray.errors import ArtifactError
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import document, tensors
from gcdis_ray.store.source import source_file

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work
    from gcdis_ray.store.members import Inputs

ID = "model"
VERSION = 1
TAKES: tuple[str, ...] = ()
GIVES = (tensors("segmenter"), document("segmenter_spec"), document("segmenter_classes"))
SEEDED = False


class Config(StageConfig):
    """Where its weights are, and what they are."""

    weights: str = Field(min_length=1, description="safetensors file, or s3://bucket/key")
    endpoint: str | None = Field(None, description=f"of weights in a bucket: {ENDPOINT}")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file")
    num_bytes: int = Field(ge=1, description="of the file")
    spec: dict[str, Any] = Field(description="document segmenter_spec of the run that trained it")
    classes: list[dict[str, Any]] = Field(description="its segmenter_classes")

    @classmethod
    def not_in_key(cls) -> frozenset[str]:
        return frozenset({"weights", "endpoint", "num_bytes"})  # where, not what


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    return Size(0, config.num_bytes, config.num_bytes, config.num_bytes)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write tensors ``segmenter``, JSON ``segmenter_spec`` and ``segmenter_classes``."""
    from safetensors.torch import load

    folder, name = source_file(config.weights, config.endpoint, "stages.model.weights")
    data = _read(lambda: folder.read(name), config.weights)
    if hashlib.sha256(data).hexdigest() != config.sha256:
        raise ArtifactError("the file is damaged (SHA-256 differs)", where=config.weights)
    work.write_tensors("segmenter", load(data))
    work.write_json("segmenter_spec", config.spec)
    work.write_json("segmenter_classes", config.classes)


def _read(read: Callable[[], bytes], where: str) -> bytes:
    try:
        return read()
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=where) from error
