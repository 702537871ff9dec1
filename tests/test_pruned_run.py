"""A pruned discovery on its way through label, segment, evaluate and the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_run import CONFIG

from gcdis_ray.cli import main
from gcdis_ray.data.samples.digits import write_scenes
from gcdis_ray.run.pipeline import Pipeline, load_config


@pytest.mark.thorough
def test_pruned_classes_reach_the_metrics_and_the_report(tmp_path: Path, capsys):
    """Twice as many novel outputs as novel classes, most of them dropped; masks are the true ones,
    so that no proposer has to be trained."""
    scenes, masks = tmp_path / "scenes", tmp_path / "masks.json"
    write_scenes(scenes, num_labeled=12, num_unlabeled=16, num_validation=4)
    told = json.loads((scenes / "annotations/unlabeled.json").read_text())["annotations"]
    rows = [dict(image_id=a["image_id"], segmentation=a["segmentation"], score=1) for a in told]
    masks.write_text(json.dumps(rows))
    overrides = [
        f"storage={tmp_path / 'storage'}",
        "compute.runtime=local",
        f"stages.ingest.root={scenes}",
        "stages.ingest.images_per_shard=8",
        "stages.propose.source=external",
        f"stages.propose.external={{results: {masks}}}",
        "stages.count.num_novel=5",
        "stages.discover.gcdis.training.steps=8",
        "stages.discover.gcdis.training.batch_size=16",
        "stages.discover.gcdis.discovery.queue_size=32",
        "stages.discover.prune={enabled: true, over_provision: 2, min_members: 8}",
        "stages.segment.training.steps=2",
        "stages.segment.training.batch_size=4",
        "stages.evaluate.kmeans_on_pixels=false",
    ]
    sets = [text for override in overrides for text in ("--set", override)]
    assert main(["run", str(CONFIG), *sets]) == 0
    printed = capsys.readouterr().out
    artifacts = Pipeline(load_config(CONFIG, overrides)).artifacts()
    metrics, pruning = artifacts["evaluate"].json("metrics"), artifacts["discover"].json("pruning")
    size = pruning["num_clusters"]
    assert pruning["num_outputs"] == 5 + 2 * 5 > size
    assert metrics["class_count"] | {"truth": 10} == {
        "estimate": 10, "discovered": size, "truth": 10, "interval": [10, 10], "method": "given",
    }  # fmt: skip
    assert len(metrics["clusters"]) == size
    labels = artifacts["label"].table("pseudo_labels").read(["cluster_id"])["cluster_id"]
    assert max(labels.to_pylist()) < size
    assert artifacts["segment"].json("segmenter_spec")["num_classes"] == size
    assert f"discovered {size}" in printed
    report = Path(printed.strip().splitlines()[-1].removeprefix("report: ")).read_text()
    assert "15 outputs trained" in report
