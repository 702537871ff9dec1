"""The shipped config for photographs in small: DeepSpeed ZeRO-1 on two Ray workers, every stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from coco_folder import make_coco_folder, write_json
from small_run import ROOT, arguments, here
from strategies import needs_deepspeed

from gcdis_ray.run.pipeline import Pipeline, load_config

CONFIG = ROOT / "configs" / "coco_folder.yaml"


@needs_deepspeed
@pytest.mark.ray
@pytest.mark.thorough
@pytest.mark.timeout(900)
def test_coco_config_runs_to_the_end(tmp_path: Path, ray_address):
    data = tmp_path / "data"
    make_coco_folder(data, num_images=40)
    (data / "all.json").rename(data / "instances.json")
    ids = list(range(1, 41))
    splits = {"train": ids[:32], "val": ids[32:], "known_voc20_category_ids": [1, 2]}
    write_json(data / "splits.json", splits)
    overrides = [
        f"storage={tmp_path / 'storage'}",
        f"compute.address={ray_address}",
        f"stages.ingest.root={data}",
        "stages.propose.detector.min_side_px=64",
        "stages.propose.detector.max_side_px=96",
        "stages.propose.training.steps=12",
        "stages.propose.min_score=0",
        "stages.crop.min_side_px=1",
        "stages.crop.min_area_px=1",
        "stages.count.num_novel=2",
        "stages.discover={method: simgcd}",  # auto wants a third known class
        "stages.discover.placing={splits: 1, stretches: [1.0]}",
        "stages.discover.simgcd.training={steps: 4, batch_size: 16, lr: 0.01}",
        "stages.discover.simgcd.encoder.cached_views=1",
        "stages.segment.training.steps=4",
    ]
    config = load_config(CONFIG, overrides)
    assert config.compute.strategy == "deepspeed"
    done = here(arguments("run", overrides, CONFIG))
    assert done.returncode == 0, done.stderr
    assert "clustering accuracy" in done.stdout
    artifacts = Pipeline(config).artifacts()
    assert artifacts["propose"].table("proposals").num_rows > 0
    assert len(artifacts["segment"].json("segmenter_classes")) == 4
