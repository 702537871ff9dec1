"""The config a finished sweep has chosen."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from gcdis_ray.config import RunConfig, apply_overrides
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.graph import make_config
from gcdis_ray.store.storage import open_storage


def load_chosen(uri: str, overrides: Sequence[str] = ()) -> RunConfig:
    """``best.yaml`` of a sweep's folder, local or ``s3://``, with overrides on top.

    Raises:
        ConfigError: the sweep has not finished, or this is not a sweep's folder.
    """
    try:
        data = yaml.safe_load(open_storage(uri).read("best.yaml"))
    except FileNotFoundError:
        raise ConfigError(
            "no best.yaml there",
            where=f"--from-sweep {uri}",
            fix="give the folder that `gcdis sweep` named, after it has finished",
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError("best.yaml is not YAML", where=f"--from-sweep {uri}") from error
    if not isinstance(data, dict):
        raise ConfigError("best.yaml is not a config", where=f"--from-sweep {uri}")
    return make_config(apply_overrides(data, overrides), where=f"{uri}/best.yaml")
