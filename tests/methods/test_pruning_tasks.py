"""What pruning asks of a stored method: clusters of several outputs, snapshots compared."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from scene_tables import memory_tensors
from small_discovery import CONFIG, crop_row
from toy_discovery import fresh_model, spec_of

from gcdis_ray.methods.pruning import CompareSnapshots, prune_outputs
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.methods.tables import AGREEMENT
from gcdis_ray.store.schemas import CROPS as CROPS_SCHEMA
from gcdis_ray.store.schemas import check_schema

MODEL = CONFIG.options.model
SPEC = spec_of(MODEL, 5)
CROPS = pa.Table.from_pylist([crop_row(n, -1) for n in range(9)], schema=CROPS_SCHEMA)


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return fresh_model(MODEL, 5).state_dict()


@pytest.fixture
def stored() -> StoredMethod:
    files = {step: memory_tensors(weights(step - 1)) for step in (1, 2)}
    return StoredMethod("gcdis", SPEC, files[2], snapshots=files)


def test_clusters_are_told_of_their_outputs(stored: StoredMethod):
    plain = stored.open("cpu")
    grouped = stored.grouped([[0], [2, 4]]).open("cpu")
    assert (plain.num_outputs, grouped.num_outputs) == (5, 2)
    assert plain.width == grouped.width == 8
    every, found = plain.infer(CROPS), grouped.infer(CROPS)
    assert grouped.infer(CROPS.slice(0, 0)).probabilities_NC.shape == (0, 2)
    kept = every.probabilities_NC[:, [0, 2, 4]]
    expected = kept[:, 1:].sum(axis=1) / kept.sum(axis=1)
    np.testing.assert_allclose(found.probabilities_NC[:, 1], expected, rtol=1e-5)
    np.testing.assert_array_equal(found.embeddings_ND, every.embeddings_ND)


def test_agreement_counts_every_crop_once_a_snapshot(stored: StoredMethod):
    told = CompareSnapshots(stored).open("cpu")(0, CROPS)["agreement"]
    found = check_schema("agreement", told, AGREEMENT).to_pylist()
    alone = [StoredMethod("gcdis", SPEC, memory_tensors(weights(seed))) for seed in (0, 1)]
    each = [one.open("cpu").infer(CROPS).probabilities_NC for one in alone]
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


def test_shards_and_an_empty_one_add_up(stored: StoredMethod):
    config = PruneConfig(enabled=True, min_members=2, min_confidence=0, merge_cosine=-1)
    run, prototypes = CompareSnapshots(stored).open("cpu"), stored.open("cpu").prototypes_KF()
    whole = prune_outputs(prototypes, 1, run(0, CROPS)["agreement"], config)
    parts = [CROPS.slice(0, 4), CROPS.slice(4, 0), CROPS.slice(4)]
    split = pa.concat_tables([run(n, part)["agreement"] for n, part in enumerate(parts)])
    assert prune_outputs(prototypes, 1, split, config).groups == whole.groups
    assert whole.report["num_outputs"] == 5
    assert sum(row["members"] for row in whole.report["outputs"]) == 9


@pytest.mark.parametrize(
    ("factor", "num_classes", "wanted"),
    [(1, 10, 10), (1.5, 10, 13), (1.1, 15, 16), (2, 5, 5), (3, 6, 8), (1.01, 6, 7)],
)
def test_over_provision_rounds_up_novel_outputs(factor, num_classes, wanted):
    assert PruneConfig(over_provision=factor).num_outputs(5, num_classes) == wanted
