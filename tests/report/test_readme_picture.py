"""The README's picture comes from a run; without one the command says what to do."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import until

from gcdis_ray.errors import ArtifactError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "readme_picture.py"
spec = importlib.util.spec_from_file_location("readme_picture", SCRIPT)
assert spec is not None
assert spec.loader is not None
readme_picture = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_picture)


def test_the_picture_shows_scenes_and_classes(finished_run):
    picture = np.asarray(readme_picture.draw_picture(finished_run))
    assert picture.shape[1] == readme_picture.WIDTH_PX
    painted = (np.abs(picture.astype(int) - readme_picture.PAPER).max(axis=2) > 20).mean(axis=0)
    assert painted[100:400].mean() > 0.5  # the scenes
    assert painted[800:1100].mean() > 0.4  # the crops


def test_a_run_without_discovery_has_no_picture(finished_run):
    with pytest.raises(ArtifactError, match="nothing discovered"):
        readme_picture.draw_picture(until(finished_run, 4))
