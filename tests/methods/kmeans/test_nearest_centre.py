"""What a stored k-means says of crops: by their embedding, and by embedding them itself."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from scene_tables import TINY, FakeArtifact, memory_tensors
from small_discovery import CLASSES, SHARDS, WriteCrops, artifact
from stage_inputs import inputs_of

from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.methods.nearest_centre import NearestCentre
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.stages import discover, embed
from gcdis_ray.store.artifacts import Size


def run_kmeans(work, backbone: str = "wavelet", **options):
    """``work`` with a few crops, their embeddings, and what stage discover makes of them."""
    work.map_shards(WriteCrops(SHARDS), [], gives=["crops"], args=[{}] * 4)
    work.write_json("classes", CLASSES)
    work.write_json("class_count", {"num_known": 2, "num_novel": 3, "num_classes": 5})
    members = {"crops": work.table("crops")}
    if backbone == "proposer":
        members["proposer"] = memory_tensors(build_mask_rcnn(TINY, 1, seed=0).state_dict())
        members["proposer_spec"] = detector_spec(TINY, 1)
    config = embed.Config.model_validate({"backbone": backbone})
    embed.run(inputs_of(embed, FakeArtifact(members)), config, work)
    config = discover.Config.model_validate({"method": "kmeans", **options})
    discover.run(inputs_of(discover, artifact(work)), config, work)
    return artifact(work)


def all_crops(found, embedded: bool) -> pa.Table:
    crops = found.table("crops").read(["jpeg", "mask_png"])
    if not embedded:
        return crops
    vectors = found.table("embeddings").read(["embedding"])["embedding"]
    return crops.append_column("embedding", vectors)


@pytest.mark.parametrize("backbone", ["wavelet", "proposer"])
def test_crops_are_told_the_same_with_and_without_their_embedding(local_work, backbone):
    found = run_kmeans(local_work, backbone, kmeans={"components": 6})
    assert found.has("kmeans_backbone") == (backbone == "proposer")
    trained = StoredMethod.read(found).open("cpu")
    given, own = (trained.infer(all_crops(found, embedded)) for embedded in (True, False))
    np.testing.assert_allclose(own.probabilities_NC, given.probabilities_NC, atol=1e-5)
    np.testing.assert_allclose(own.embeddings_ND, given.embeddings_ND, atol=1e-5)
    assert given.probabilities_NC.shape == (12, 5) == (12, trained.num_outputs)
    assert given.embeddings_ND.shape == (12, 6) == (12, trained.width)
    np.testing.assert_allclose(given.probabilities_NC.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(given.embeddings_ND, axis=1), 1, rtol=1e-5)
    rows = found.table("assignments").read()
    np.testing.assert_array_equal(rows["cluster_id"].to_numpy(), given.probabilities_NC.argmax(1))
    stored = np.stack(rows["embedding"].to_pylist())  # of shards: fewer rows at a time
    np.testing.assert_allclose(stored, given.embeddings_ND, atol=1e-6)


@pytest.mark.parametrize("embedded", [True, False])
def test_no_crops(local_work, embedded):
    found = run_kmeans(local_work)
    told = StoredMethod.read(found).open("cpu").infer(all_crops(found, embedded).slice(0, 0))
    assert told.probabilities_NC.shape == (0, 5)
    assert told.embeddings_ND.shape == (0, 400)


def test_probabilities_by_their_definition(local_work):
    found = run_kmeans(local_work, kmeans={"temperature": 0.3})
    stored = found.tensor_file("kmeans_centres").load()
    points = torch.tensor(found.table("embeddings").read()["embedding"].to_pylist())
    points = torch.nn.functional.normalize(points - stored["mean_D"], dim=1)
    expected = torch.softmax(points @ stored["centres_KC"].T / 0.3, dim=1)
    told = StoredMethod.read(found).open("cpu").infer(all_crops(found, True))
    np.testing.assert_allclose(told.probabilities_NC, expected.numpy(), rtol=1e-4)


def test_an_output_without_a_centre_is_never_named(local_work):
    found = run_kmeans(local_work)
    stored = StoredMethod.read(found)
    trained = stored.open("cpu")
    assert isinstance(trained, NearestCentre)
    trained.centres_KC[3] = 0
    told = trained.infer(all_crops(found, True)).probabilities_NC
    assert not told[:, 3].any()
    np.testing.assert_allclose(told.sum(axis=1), 1, rtol=1e-5)


def test_a_hold_out_is_scored_at_the_end(local_work):
    found = run_kmeans(local_work, hold_out={"share": 0.5})
    assert found.json("holdout")["curve"] == []
    names = [row["name"] for row in found.json("discovered_classes")]
    assert names[1:] == ["novel 1", "novel 2", "novel 3", "novel 4"]


def test_a_forecast_is_within_a_factor_of_two(local_work):
    found = run_kmeans(local_work, kmeans={"components": 6})
    config = discover.Config.model_validate({"method": "kmeans", "kmeans": {"components": 6}})
    embeddings = Size(12, 12 * 4 * 400)
    size = discover.forecast(config, {"crops": Size(12, 10_000), "embeddings": embeddings})
    files = found.manifest.files
    made = sum(f.bytes for name in ("kmeans_centres", "assignments") for f in files[name])
    assert made / 2 < size.bytes < 2 * made + 10_000
