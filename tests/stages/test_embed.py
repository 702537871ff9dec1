"""Stage embed on a few crops."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scene_tables import TINY, FakeArtifact, memory_table, memory_tensors
from stage_inputs import inputs_of

from gcdis_ray.errors import ConfigError
from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.stages import embed


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


def test_weights_travel_in_the_artifact_and_are_in_the_key(local_work, tmp_path: Path) -> None:
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    save_file(mobilenet_v2(weights=None).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = _config(backbone="mobilenet_v2", weights=str(path), sha256=digest, input_px=32)
    assert embed.source(config) == digest
    assert "weights" not in config.key_fields()
    inputs = _inputs()
    small = inputs["crop"].table("crops").shard(0).to_pylist()
    inputs["crop"] = FakeArtifact({"crops": memory_table("crops", [small])})
    embed.run(inputs_of(embed, inputs), config, local_work)
    path.unlink()
    assert local_work.tensor_file("backbone").load()["features.0.0.weight"].shape == (32, 3, 3, 3)
    assert local_work.table("embeddings").num_rows == 3
    record = local_work.files["embed_spec"][0]
    spec = json.loads(local_work.table("embeddings").opener.read_bytes(record))
    assert spec["weights_sha256"] == digest


def test_a_network_without_weights_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="needs weights"):
        _config(backbone="resnet50")
    assert embed.source(_config()) == ""
