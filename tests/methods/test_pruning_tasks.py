"""Inference over groups of outputs, and how snapshots are compared."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from scene_tables import memory_tensors
from small_discovery import CONFIG, crop_row

from gcdis_ray.methods.gcdis.inference import grouped_softmax, infer_crops, num_clusters
from gcdis_ray.methods.gcdis.model import build_discovery_model, load_discovery_model
from gcdis_ray.methods.pruning import CompareSnapshots, prune_model
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.store.schemas import check_schema

SPEC = dict(
    model=CONFIG.model.model_dump(mode="json"),
    num_known=1,
    num_classes=5,
    cache_px=16,
    softmax_temperature=0.1,
    snapshots=["snapshot_1", "snapshot_2"],
)
CROPS = pa.Table.from_pylist([crop_row(n, -1) for n in range(9)], schema=CROPS)


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return build_discovery_model(CONFIG.model, 5).state_dict()


@pytest.fixture
def compare() -> CompareSnapshots:
    return CompareSnapshots(SPEC, [1, 2], [memory_tensors(weights(0)), memory_tensors(weights(1))])


def test_grouped_softmax_by_its_definition():
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    groups = [[0], [4, 1], [5]]
    found = grouped_softmax(logits, groups)
    power = np.exp(logits.numpy())
    total = power[:, [0, 1, 4, 5]].sum(axis=1)
    for cluster, group in enumerate(groups):
        np.testing.assert_allclose(
            found[:, cluster], power[:, group].sum(axis=1) / total, rtol=1e-5
        )


def test_inference_takes_groups_from_the_spec():
    model = load_discovery_model(SPEC, weights(1))
    spec = {**SPEC, "groups": [[0], [2, 4]]}
    assert (num_clusters(SPEC), num_clusters(spec)) == (5, 2)
    every, found = infer_crops(model, SPEC, CROPS), infer_crops(model, spec, CROPS)
    assert infer_crops(model, spec, CROPS.slice(0, 0)).probabilities_NC.shape == (0, 2)
    kept = every.probabilities_NC[:, [0, 2, 4]]
    expected = kept[:, 1:].sum(axis=1) / kept.sum(axis=1)
    np.testing.assert_allclose(found.probabilities_NC[:, 1], expected, rtol=1e-5)
    np.testing.assert_array_equal(found.projections_ND, every.projections_ND)


def test_agreement_counts_every_crop_once_a_snapshot(compare: CompareSnapshots):
    found = check_schema("agreement", compare.open("cpu")(0, CROPS)["agreement"]).to_pylist()
    models = [load_discovery_model(SPEC, weights(seed)) for seed in (0, 1)]
    each = [infer_crops(model, SPEC, CROPS).probabilities_NC for model in models]
    expected: dict[tuple[int, int, int], tuple[int, float]] = {}
    for step, probabilities in zip((1, 2), each, strict=True):
        for crop, last in enumerate(each[-1]):
            key = (step, int(probabilities[crop].argmax()), int(last.argmax()))
            count, total = expected.get(key, (0, 0.0))
            expected[key] = (count + 1, total + float(last.max()))
    assert len(found) == len(expected)
    for row in found:
        count, total = expected[row["step"], row["output"], row["last_output"]]
        assert row["crops"] == count
        assert row["confidence"] == pytest.approx(total)


def test_shards_and_an_empty_one_add_up(compare: CompareSnapshots):
    config = PruneConfig(enabled=True, min_members=2, min_confidence=0, merge_cosine=-1)
    run, final = compare.open("cpu"), memory_tensors(weights(1))
    whole = prune_model(SPEC, final, run(0, CROPS)["agreement"], config)
    parts = [CROPS.slice(0, 4), CROPS.slice(4, 0), CROPS.slice(4)]
    split = pa.concat_tables([run(n, part)["agreement"] for n, part in enumerate(parts)])
    assert prune_model(SPEC, final, split, config).groups == whole.groups
    assert whole.report["num_outputs"] == 5
    assert sum(row["members"] for row in whole.report["outputs"]) == 9


@pytest.mark.parametrize(
    ("factor", "num_classes", "wanted"),
    [(1, 10, 10), (1.5, 10, 13), (1.1, 15, 16), (2, 5, 5), (3, 6, 8), (1.01, 6, 7)],
)
def test_over_provision_rounds_up_novel_outputs(factor, num_classes, wanted):
    assert PruneConfig(over_provision=factor).num_outputs(5, num_classes) == wanted
