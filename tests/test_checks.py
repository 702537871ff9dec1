"""What is looked at before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcdis_ray.checks import before_run
from gcdis_ray.errors import ConfigError
from gcdis_ray.pipeline import load_config

QUICKSTART = Path(__file__).resolve().parents[1] / "configs/quickstart.yaml"


def test_weights_of_the_encoder_are_looked_at(tmp_path: Path):
    before_run(load_config(QUICKSTART))
    at = "stages.discover.model.encoder"
    changes = [
        f"{at}={{body: mobilenet_v2, weights: {tmp_path / 'nowhere.npz'}, "
        f"weights_sha256: '{'a' * 64}'}}"
    ]
    with pytest.raises(ConfigError, match=r"cannot read the weights.*nowhere|nowhere.*cannot read"):
        before_run(load_config(QUICKSTART, changes))
    (tmp_path / "nowhere.npz").write_bytes(b"another file")
    with pytest.raises(ConfigError, match="the config wants aaa"):
        before_run(load_config(QUICKSTART, changes))
