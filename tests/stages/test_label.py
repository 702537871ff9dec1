"""Stage label on the few crops of a small discovery."""

from __future__ import annotations

import pytest
from small_discovery import CONFIG, artifact, run_discover
from stage_inputs import inputs_of

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.stages import label


def test_ranks_unlabeled_crops_over_all_shards(local_work):
    discovered = run_discover(local_work)
    label.run(inputs_of(label, artifact(discovered)), label.Config(), discovered)
    table = discovered.table("pseudo_labels")
    assert [shard.rows for shard in table.shards] == [0, 4, 0, 3]
    rows = table.read().to_pylist()
    assignments = {r["crop_index"]: r for r in discovered.table("assignments").read().to_pylist()}
    for row in rows:
        found = assignments[row["crop_index"]]
        assert row["cluster_id"] == found["cluster_id"]
        assert row["probability"] == found["topk_probabilities"][0]
        assert row["source_id"] == row["crop_index"] + 100
        assert row["stability"] > 0
        same = [r["stability"] for r in rows if r["cluster_id"] == row["cluster_id"]]
        below = sum(s < row["stability"] for s in same)
        equal = sum(s == row["stability"] for s in same)
        assert row["reliability"] == pytest.approx((below + (equal + 1) / 2) / len(same))


def test_a_discovery_with_hidden_classes_is_refused(local_work):
    config = CONFIG.model_copy(update={"hold_out": HoldOutConfig(share=0.5)})
    discovered = run_discover(local_work, config)
    with pytest.raises(ConfigError, match="for tuning only"):
        label.run(inputs_of(label, artifact(discovered)), label.Config(), discovered)
