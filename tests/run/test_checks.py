"""What is looked at before a run starts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from gcdis_ray.cli import main
from gcdis_ray.data.samples.digits import write_scenes
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.checks import before_run
from gcdis_ray.run.pipeline import load_config

QUICKSTART = Path(__file__).resolve().parents[2] / "configs/quickstart.yaml"


def test_weights_of_the_encoder_are_looked_at(tmp_path: Path):
    before_run(load_config(QUICKSTART))
    at = "stages.discover.gcdis.model.encoder"
    changes = [
        f"{at}={{body: mobilenet_v2, weights: {tmp_path / 'nowhere.npz'}, "
        f"weights_sha256: '{'a' * 64}'}}"
    ]
    with pytest.raises(ConfigError, match=r"cannot read the weights.*nowhere|nowhere.*cannot read"):
        before_run(load_config(QUICKSTART, changes))
    (tmp_path / "nowhere.npz").write_bytes(b"another file")
    with pytest.raises(ConfigError, match="the config wants aaa"):
        before_run(load_config(QUICKSTART, changes))
    digest = hashlib.sha256(b"another file").hexdigest()
    with pytest.raises(ConfigError, match="neither a safetensors nor an npz file"):
        before_run(load_config(QUICKSTART, [*changes, f"{at}.weights_sha256={digest}"]))


def test_a_config_that_hides_classes_can_be_planned_up_to_discover(tmp_path: Path):
    write_scenes(tmp_path / "scenes", num_labeled=2, num_unlabeled=2, num_validation=1)
    changes = [
        "stages.discover.hold_out.share=0.2",
        f"stages.ingest.root={tmp_path / 'scenes'}",
        f"storage={tmp_path / 'storage'}",
    ]
    sets = [text for change in changes for text in ("--set", change)]
    assert main(["plan", str(QUICKSTART), *sets]) == 2
    assert main(["plan", str(QUICKSTART), *sets, "--until", "discover"]) == 0
