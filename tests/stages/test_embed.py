"""Stage embed on a few crops."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from scene_tables import TINY, FakeArtifact, memory_table, memory_tensors
from stage_inputs import inputs_of

from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.methods.embedding import open_embedding
from gcdis_ray.stages import embed
from gcdis_ray.store.artifacts import Size


def _encoded(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _inputs(**members: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = [
        {
            "crop_index": n,
            "image_id": n,
            "source_id": n,
            "class_index": 0 if n < 3 else -1,
            "window_xyxy": [0, 0, 20, 12],
            "bbox_xyxy": [0, 0, 20, 12],
            "jpeg": _encoded(rng.integers(0, 256, (12, 20, 3), dtype=np.uint8)),
            "mask_png": _encoded((rng.random((12, 20)) > 0.5).astype(np.uint8) * 255),
        }
        for n in range(70)
    ]
    crops = memory_table("crops", [rows[:3], [], rows[3:]])
    return {"crop": FakeArtifact({"crops": crops}), "propose": FakeArtifact(members)}


def _config(**values: Any) -> embed.Config:
    return embed.Config.model_validate(values)


def _vectors(work) -> torch.Tensor:
    table = work.table("embeddings").read()
    assert table["crop_index"].to_pylist() == list(range(70))
    assert table["class_index"].to_pylist() == [0] * 3 + [-1] * 67
    return torch.tensor(table["embedding"].to_pylist())


def test_every_crop_gets_a_unit_vector_in_its_shard(local_work) -> None:
    embed.run(inputs_of(embed, _inputs()), _config(), local_work)
    vectors = _vectors(local_work)
    assert vectors.shape == (70, 400)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(70))
    assert [shard.rows for shard in local_work.table("embeddings").shards] == [3, 0, 67]


def test_use_mask_changes_what_is_seen(local_work) -> None:
    embed.run(inputs_of(embed, _inputs()), _config(use_mask=False), local_work)
    assert _vectors(local_work).shape == (70, 200)


def test_the_proposers_features(local_work) -> None:
    model = build_mask_rcnn(TINY, 1, seed=0)
    inputs = _inputs(
        proposer=memory_tensors(model.state_dict()), proposer_spec=detector_spec(TINY, 1)
    )
    embed.run(inputs_of(embed, inputs), _config(backbone="proposer", input_px=64), local_work)
    vectors = _vectors(local_work)
    assert vectors.shape == (70, 2 * TINY.fpn_channels)
    assert float(vectors.std(dim=0).max()) > 1e-4
    kept = local_work.tensor_file("backbone").load()
    assert all(bool((kept[name] == value).all()) for name, value in model.state_dict().items())
    with pytest.raises(ConfigError, match="no trained proposer"):
        embed.run(inputs_of(embed, _inputs()), _config(backbone="proposer"), local_work)


def _few(inputs: dict[str, Any]) -> dict[str, Any]:
    small = inputs["crop"].table("crops").shard(0).to_pylist()
    return inputs | {"crop": FakeArtifact({"crops": memory_table("crops", [small])})}


def _stored(folder: Path, model: str) -> dict[str, str]:
    torch.manual_seed(0)
    path = folder / "net.safetensors"
    save_file(timm.create_model(model).state_dict(), path)
    return {"weights": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_weights_travel_in_the_artifact(local_work, tmp_path: Path, model: str) -> None:
    file = _stored(tmp_path, model)
    config = _config(backbone=model, input_px=32, **file)
    embed.check(config, {})
    inputs = _few(_inputs())
    embed.run(inputs_of(embed, inputs), config, local_work)
    Path(file["weights"]).unlink()
    found = torch.tensor(local_work.table("embeddings").read()["embedding"].to_pylist())
    record = local_work.files["embed_spec"][0]
    spec = json.loads(local_work.table("embeddings").opener.read_bytes(record))
    assert spec["weights_sha256"] == file["sha256"]
    assert spec["trained_with_labels"] == "unknown"
    assert spec["features"] == ("both" if model == "test_vit" else "patch_mean")
    again = open_embedding(spec, local_work.tensor_file("backbone").load(), "cpu")
    crops = inputs["crop"].table("crops").read()
    torch.testing.assert_close(torch.from_numpy(again(crops)), found)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))


def test_the_key_knows_what_the_weights_are_and_not_where(tmp_path: Path) -> None:
    file = _stored(tmp_path, "test_vit")
    here = _config(backbone="test_vit", **file)
    there = _config(backbone="test_vit", weights="elsewhere", sha256=file["sha256"], download=True)
    other = _config(backbone="test_vit", weights="elsewhere", sha256="0" * 64)
    assert here.key_fields() == there.key_fields()
    assert here.key_fields() != other.key_fields()
    package = _config(backbone="tf_efficientnet_lite0", weights="package")
    assert package.key_fields()["sha256"].startswith("57934424")


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        ({"backbone": "test_vitt"}, "backbone", "test_vit"),
        ({"backbone": "mobilenet_v2"}, "backbone", "mobilenetv2_100"),
        ({"sha256": None}, "weights", "need their SHA-256"),
        ({"sha256": "0" * 64}, "weights", "the config wants 000"),
        ({"weights": "nowhere"}, "weights", "cannot read"),
        ({"weights": "package"}, "weights", "no weights package"),
        ({"backbone": "test_efficientnet"}, "weights", "not weights of test_efficientnet"),
        ({"input_px": 50}, "input_px", "use 48 or 64 px"),
        ({"backbone": "test_resnet", "features": "both"}, "features", "no class token"),
    ],
)
def test_what_cannot_be_stops_a_run_before_it_starts(tmp_path, change, key, message) -> None:
    config = _config(**{"backbone": "test_vit", "input_px": 32, **_stored(tmp_path, "test_vit")})
    embed.check(config, {})
    if change.get("backbone") == "test_resnet":
        change = {**change, **_stored(tmp_path, "test_resnet")}
    with pytest.raises(ConfigError, match=message) as raised:
        embed.check(config.model_copy(update=change), {})
    assert raised.value.where == f"stages.embed.{key}"


def test_contradictions_are_named() -> None:
    with pytest.raises(ConfigError, match="needs weights"):
        _config(backbone="resnet50")
    with pytest.raises(ConfigError, match=r"stages\.embed\.weights: no weights package"):
        _config(backbone="resnet50", weights="package")
    with pytest.raises(ConfigError, match=r"stages\.embed\.weights"):
        _config(weights="package")
    with pytest.raises(ConfigError, match=r"stages\.embed\.features"):
        _config(backbone="proposer", features="both")


def test_forecast_counts_the_network() -> None:
    config = _config(backbone="test_vit", weights="nowhere", sha256="0" * 64, input_px=32)
    size = embed.forecast(config, {"crops": Size(10, 1000)})
    weights = sum(p.numel() for p in timm.create_model("test_vit", num_classes=0).parameters())
    assert size.weight_bytes == pytest.approx(4 * weights, rel=0.01)
    assert size.bytes == size.weight_bytes + 4 * 2 * 64 * 10
