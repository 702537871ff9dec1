"""All snapshots of a trained method at once: decoded once, the same numbers, in its precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from scene_tables import memory_tensors
from small_discovery import CONFIG, artifact, crop_row, run_discover
from toy_discovery import fresh_model, spec_of

from gcdis_ray.data.crops import crop_store
from gcdis_ray.methods import crop_views, trained_network
from gcdis_ray.methods.crop_views import CropViews
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.store.schemas import CROPS as CROPS_SCHEMA

MODEL = CONFIG.options.model
CROPS = pa.Table.from_pylist([crop_row(n, -1) for n in range(9)], schema=CROPS_SCHEMA)


@pytest.fixture
def stored() -> StoredMethod:
    files = {}
    for step in (1, 2, 3):
        torch.manual_seed(step)
        files[step] = memory_tensors(fresh_model(MODEL, 5).state_dict())
    return StoredMethod("gcdis", spec_of(MODEL, 5), files[3], snapshots=files)


def test_each_crop_is_decoded_once_for_all_of_them(
    stored: StoredMethod, monkeypatch: pytest.MonkeyPatch
):
    decoded, decode = [], crop_store._decode

    def note(jpegs, *rest, **options):
        decoded.append(len(jpegs))
        decode(jpegs, *rest, **options)

    monkeypatch.setattr(crop_store, "_decode", note)
    monkeypatch.setattr(crop_views, "_PLAIN_ROWS", 4)
    found = stored.open_snapshots("cpu")(CROPS)
    assert decoded == [4, 4, 1]
    assert found.shape == (3, 9, 5)
    assert found.dtype == np.float32
    for one, weights in zip(found, stored.snapshots.values(), strict=True):
        alone = replace(stored, weights=weights).open("cpu").infer(CROPS)
        np.testing.assert_array_equal(one, alone.probabilities_NC)
    assert stored.open_snapshots("cpu")(CROPS.slice(0, 0)).shape == (3, 0, 5)


def test_snapshots_of_clusters_are_joined_one_by_one(stored: StoredMethod):
    groups = [[0], [2, 4]]
    found = stored.grouped(groups).open_snapshots("cpu")(CROPS)
    assert found.shape == (3, 9, 2)
    last = stored.grouped(groups).open("cpu").infer(CROPS)
    np.testing.assert_array_equal(found[-1], last.probabilities_NC)


def test_bf16_is_for_gpus(stored: StoredMethod, monkeypatch: pytest.MonkeyPatch):
    """On a CPU the numbers are those of fp32, bit by bit; elsewhere the network runs in bf16, in
    the layout that is fastest then, and only cosines stay in fp32."""
    mixed = replace(stored, spec={**stored.spec, "precision": "bf16"})
    assert (stored.precision, mixed.precision) == ("fp32", "bf16")
    want = stored.open("cpu").infer(CROPS)
    on_cpu = mixed.open("cpu").infer(CROPS)
    np.testing.assert_array_equal(on_cpu.probabilities_NC, want.probabilities_NC)
    monkeypatch.setattr(trained_network, "precision_on", lambda device, wanted: wanted)
    opened, seen = mixed.open("cpu"), []
    opened.network.encoder.layer1.register_forward_hook(  # pyright: ignore[reportAttributeAccessIssue]
        lambda module, inputs, output: seen.append((output.dtype, output.stride()[1]))
    )
    found = opened.infer(CROPS)
    assert seen == [(torch.bfloat16, 1)]
    np.testing.assert_allclose(found.probabilities_NC, want.probabilities_NC, atol=0.05)
    assert not np.array_equal(found.probabilities_NC, want.probabilities_NC)
    np.testing.assert_allclose(np.linalg.norm(found.embeddings_ND, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_method_tells_the_precision_of_its_training_where_it_is_not_fp32(
    local_work, precision: str
):
    training = CONFIG.options.training.model_copy(update={"precision": precision})
    options = CONFIG.options.model_copy(update={"training": training})
    run_discover(local_work, CONFIG.model_copy(update={"gcdis": options}))
    stored = StoredMethod.read(artifact(local_work))
    assert stored.precision == precision
    assert ("precision" in stored.spec) == (precision == "bf16")


def test_on_a_gpu_more_crops_go_at_a_time():
    store = crop_store.CropStore(CROPS, 20, budget_mb=0)
    side, rows = 350, torch.arange(9)
    here = [len(view) for view in CropViews(store, side, mask_input=True).plain(rows)]
    meta = CropViews(store, side, mask_input=True, device=torch.device("meta"))
    assert (here, [view.shape for view in meta.plain(rows)]) == ([8, 1], [(9, 4, side, side)])
