"""Trunks: training, a stored method and stage embed see crops through one and the same body."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from scene_tables import FakeArtifact, memory_tensors
from small_discovery import SHARDS
from small_trunk import NUM, SIDE_PX, crops_in, encoder_of, trunk_of

from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.crop_inputs import CropInputs
from gcdis_ray.methods.embedding import open_embedding
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.trunk import TrunkSpec, build_encoder, prepare_trunk
from gcdis_ray.models.body_encoder import TailEncoder
from gcdis_ray.store.artifacts import Size

CPU = torch.device("cpu")
ROWS = torch.arange(NUM)


@pytest.mark.parametrize(
    ("model", "learns", "cached"),
    [
        ("test_efficientnet", "none", 0),
        ("test_efficientnet", 1, 2),
        ("test_efficientnet", "all", 0),
        ("test_vit", "none", 2),
        ("test_vit", 1, 0),
        ("test_vit", "all", 0),
    ],
)
def test_training_starts_at_what_stage_embed_sees_and_a_stored_method_sees_the_same(
    local_work, tmp_path: Path, model: str, learns: Any, cached: int
):
    encoder = encoder_of(tmp_path, model, trainable=learns, cached_views=cached)
    crops = crops_in(local_work)
    trunk = pickle.loads(pickle.dumps(trunk_of(local_work, crops, encoder)))  # noqa: S301
    views, student = trunk.open_views(crops, CPU, 1), trunk.build_encoder().train()
    assert views.labels.tolist() == [y for shard in SHARDS for y in shard]
    plain = torch.cat(list(views.plain(ROWS)))
    features, saliencies = student(plain)
    assert (features.shape, saliencies) == ((NUM, student.num_features), [])

    embed = open_embedding(trunk.spec.body.spec, trunk.weights.load(), "cpu")(crops.read())
    cosines = (torch.nn.functional.normalize(features) * torch.from_numpy(embed)).sum(dim=1)
    assert cosines.min() > 0.98  # crops come to the side by another way of resizing

    spec = TrunkSpec.model_validate(trunk.spec.model_dump(mode="json"))
    others = {name: local_work.tensor_file(name).load() for name in trunk.members}
    inputs = CropInputs.opened(spec, others, "cpu")
    table = crops.read()
    seen = torch.cat(list(inputs.of(table)))
    torch.testing.assert_close(seen, plain, atol=2e-3 if cached else 1e-5, rtol=1e-3)
    assert torch.equal(torch.cat(list(inputs.of(table))), seen)
    assert list(inputs.of(table.slice(0, 0))) == []
    stored = build_encoder(spec)
    stored.load_state_dict(student.state_dict())
    torch.testing.assert_close(stored.eval()(plain)[0], features)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_what_learns_is_stored_and_nothing_else(local_work, tmp_path: Path, model: str):
    crops, sizes = crops_in(local_work), {}
    encoder = encoder_of(tmp_path, model, trainable=1, cached_views=1)
    trunk = trunk_of(local_work, crops, encoder)
    assert trunk.members == ("trunk",)
    for learns in ("none", 1, "all"):
        part = trunk.spec.model_copy(
            update={"encoder": encoder.model_copy(update={"trainable": learns, "cached_views": 0})}
        )
        sizes[learns] = sum(t.numel() for t in build_encoder(part).state_dict().values())
    assert sizes["none"] == 0
    assert 0 < sizes[1] < sizes["all"]
    whole = sum(t.numel() for t in trunk.weights.load().values())
    assert sizes["all"] == pytest.approx(whole, rel=0.01)


def test_features_are_those_of_the_object(local_work, tmp_path: Path):
    """A tail pools over the mask, which its rows carry."""
    crops = crops_in(local_work)
    options = {"trainable": 1, "cached_views": 0, "features": "patch_mean"}
    spec = trunk_of(local_work, crops, encoder_of(tmp_path, "test_vit", **options)).spec
    weights = {"trunk": local_work.tensor_file("trunk").load()}
    rows = torch.cat(list(CropInputs.opened(spec, weights, "cpu").of(crops.read())))
    assert spec.body is not None
    assert spec.body.in_shape is not None
    assert spec.body.map_hw == (2, 2)
    size = math.prod(spec.body.in_shape)
    assert rows.shape == (NUM, size + 4)
    assert 0 < rows[:, size:].min() < rows[:, size:].max() < 1
    rows[:, size:] = torch.tensor([0.0, 0.5, 0.0, 0.0])
    tail = build_encoder(spec, weights["trunk"])
    assert isinstance(tail, TailEncoder)
    map_NCHW = tail.tail(rows[:, :size].unflatten(1, spec.body.in_shape))
    expected = torch.nn.functional.normalize(map_NCHW[:, :, 0, 1], dim=1)
    torch.testing.assert_close(tail(rows)[0], expected)


def test_a_stored_tail_pads_as_the_weights_want(local_work):
    """What is stored of a body in part does not say so by itself."""
    torch.manual_seed(0)
    body = build_backbone("test_efficientnet", None, 64)
    tensors = dict(body.net.state_dict()) | {"same_padding": torch.tensor(True)}
    told = {"backbone": "test_efficientnet", "input_px": 64, "use_mask": True, "features": "auto"}
    space: Any = FakeArtifact({"embed_spec": told, "backbone": memory_tensors(tensors)})
    problem = Problem(crops_in(local_work), 2, 5, 0, space=space)
    encoder = EncoderConfig(trainable=1, cached_views=0)
    trunk = prepare_trunk(problem, encoder, CropAugmentConfig(), None, local_work)
    assert trunk.spec.body is not None
    assert trunk.spec.body.same_padding
    (seen,) = trunk.open_views(problem.crops, CPU, 1).plain(ROWS)
    assert trunk.spec.body.in_shape is not None
    entering = seen[:, : math.prod(trunk.spec.body.in_shape)].unflatten(1, trunk.spec.body.in_shape)
    stored = build_encoder(TrunkSpec.model_validate(trunk.spec.model_dump(mode="json")))
    stored.load_state_dict(trunk.build_encoder().state_dict())
    body.take(tensors)
    assert isinstance(stored, TailEncoder)
    plain = build_backbone("test_efficientnet", tensors | {"same_padding": torch.tensor(False)}, 64)
    found, padded, evenly = (
        tail(entering) for tail in (stored.tail, body.eval().split(1)[1], plain.eval().split(1)[1])
    )
    torch.testing.assert_close(found, padded)
    assert not torch.allclose(found, evenly, rtol=0.01, atol=1e-6)


def test_random_views_of_a_front_are_those_of_the_generator(local_work, tmp_path: Path):
    crops = crops_in(local_work)
    encoder = encoder_of(tmp_path, "test_resnet", cached_views=0)
    views = trunk_of(local_work, crops, encoder).open_views(crops, CPU, 1)
    first, again = (
        views.random(ROWS, 2, CropAugmentConfig(), torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert [shape.shape for _, shape in first] == [(NUM, 1, SIDE_PX, SIDE_PX)] * 2
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], first[1][0])


def test_forecast_is_near_what_is_stored(local_work, tmp_path: Path):
    from gcdis_ray.methods.trunk_size import trunk_size
    from gcdis_ray.models.stored import module_bytes

    crops = crops_in(local_work)
    encoder = encoder_of(tmp_path, "test_vit", trainable=1, cached_views=2)
    found = trunk_size(encoder, {"crops": Size(NUM, 0)})
    trunk = trunk_of(local_work, crops, encoder)
    assert found.num_features == trunk.spec.body.num_features
    assert found.learning == module_bytes(trunk.build_encoder())
    assert found.stored == pytest.approx(trunk.weights.record.bytes, rel=0.1)
    assert found.views == pytest.approx(trunk.views.read().nbytes, rel=0.1)
    told = {"crops": Size(100, 0), "embeddings": Size(100, 100 * 4 * 50 + 3000, 0, 3000)}
    whole = trunk_size(EncoderConfig(), told)
    assert (whole.num_features, whole.learning, whole.stored) == (50, 0, 3000)
    assert whole.views == 100 * 5 * 50 * 2
