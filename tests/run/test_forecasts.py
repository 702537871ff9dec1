"""What stages forecast from their inputs is within a factor of two of what a run then does."""

from __future__ import annotations

import pytest
from small_run import open_pipeline

from gcdis_ray.run.graph import load_recipe
from gcdis_ray.run.pipeline import iter_status

TRAINED = ("propose", "discover", "segment")  # their checkpoints depend on time


@pytest.mark.parametrize("stage", load_recipe("gcdis"))
def test_within_a_factor_of_two(small_run, stage: str):
    pipeline = open_pipeline(small_run.overrides)
    node, manifest = pipeline.nodes[stage], pipeline.manifest(stage)
    inputs = {m: pipeline.manifest(giver).size for m, giver in node.takes.items()}
    forecast = node.stage.forecast(node.config, inputs)
    assert forecast.bytes / 2 <= manifest.size.bytes <= 2 * forecast.bytes
    assert forecast.read_bytes / 2 <= manifest.io["read_bytes"] <= 2 * forecast.read_bytes
    if stage not in TRAINED:
        assert forecast.bytes / 2 <= manifest.io["written_bytes"] <= 2 * forecast.bytes


@pytest.mark.parametrize("stage", ["propose", "crop", "segment"])
def test_images_that_stay_in_their_source_count_as_much(small_run, stage: str):
    pipeline = open_pipeline(small_run.overrides)
    ingest, node = pipeline.nodes["ingest"], pipeline.nodes[stage]
    sizes = {m: pipeline.manifest(giver).size for m, giver in node.takes.items()}
    given = [member for member, giver in node.takes.items() if giver == "ingest"]
    kept, left = (
        node.stage.forecast(
            node.config, sizes | dict.fromkeys(given, ingest.stage.forecast(config, {}))
        )
        for config in (ingest.config, ingest.config.model_copy(update={"store": "uri"}))
    )
    assert left == kept


def test_status_tells_them(small_run):
    for stage in iter_status(open_pipeline(small_run.overrides)):
        assert stage["read_bytes"] > 0
        assert stage["written_bytes"] >= stage["bytes"]
