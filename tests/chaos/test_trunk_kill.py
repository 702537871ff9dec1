"""A ViT whose last block learns on cached views: local, on Ray, killed on the way: equal bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_run import CONFIG, contents, environment, gcdis, small_overrides
from small_trunk import SIDE_PX, weights_in

DYING_RUN = Path(__file__).with_name("dying_run.py")


@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_killed_in_discovery_and_finished_on_ray(tmp_path: Path):
    file = weights_in(tmp_path, "test_vit")
    encoder = "{body: embed, trainable: 1, cached_views: 2}"
    overrides = [
        *small_overrides(tmp_path),
        "stages.propose.training.steps=2",
        "stages.embed.backbone=test_vit",
        f"stages.embed.weights={file['weights']}",
        f"stages.embed.sha256='{file['weights_sha256']}'",
        f"stages.embed.input_px={SIDE_PX}",
        "stages.count.num_novel=3",
        f"stages.discover.gcdis.model={{encoder: {encoder}, heads: {{projection_dim: 16}}}}",
        "stages.discover.gcdis.discovery={queue_size: 64, prototypes: {start: placed}}",
        "stages.discover.gcdis.snapshots_from=0.4",
    ]
    done = gcdis("run", overrides, "--until", "label")
    assert done.returncode == 0, done.stderr
    whole = contents(overrides)
    assert {"trunk", "views", "encoder", "snapshot_12"} <= whole["discover"].keys()

    overrides = [*overrides, f"storage={tmp_path / 'again'}"]
    died = subprocess.run(
        [sys.executable, str(DYING_RUN), "discover", str(CONFIG), *overrides],
        env=environment(), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = gcdis("run", [*overrides, "compute.runtime=ray"], "--until", "label")
    assert done.returncode == 0, done.stderr
    assert contents(overrides) == whole
