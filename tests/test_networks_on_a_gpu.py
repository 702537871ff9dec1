"""Every network, as on a GPU: no device mix-up, no reading back but what is listed here.

What has to read back, and does:

- suppression: how many boxes are left (the region proposals' own, the detector's by class), which
  level of the pyramid a region is pooled from, which regions a training step samples;
- UNO: which of its heads is the best, one number a forward;
- results, once, at the end of a shard (of an image, for detectors).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
from on_meta import DevicesMeet, like_a_gpu, reads_back
from scene_tables import TINY, memory_tensors
from small_discovery import crop_row
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from toy_discovery import MODEL as RESNET
from toy_discovery import fresh_model, spec_of

from gcdis_ray.backbones.network import build_backbone
from gcdis_ray.data.crops.augment import random_view
from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.data.upload import upload_together
from gcdis_ray.instances.detector import Limits
from gcdis_ray.instances.detector_config import ClassifierConfig, DetectorConfig
from gcdis_ray.instances.inference import detector_spec
from gcdis_ray.instances.instance_heads import mask_loss
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.methods.discovery_model import build_discovery_model
from gcdis_ray.methods.embedding import open_backbone
from gcdis_ray.methods.encoder_config import EncoderConfig
from gcdis_ray.methods.heads_config import HeadsConfig
from gcdis_ray.methods.method import Trained
from gcdis_ray.methods.nearest_centre import NearestCentre
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.methods.trained_network import TrainedNetwork
from gcdis_ray.methods.trunk import TrunkSpec, _measured, build_encoder
from gcdis_ray.methods.uno.config import NovelHeadsConfig
from gcdis_ray.methods.uno.model import build_uno
from gcdis_ray.store.schemas import CROPS

META = torch.device("meta")
ROPE = "vit_small_patch16_dinov3"  # the smallest whose positions are rotations
NETWORKS = (
    *("test_resnet", "test_convnext", "test_vit", "test_efficientnet"),
    pytest.param(ROPE, marks=pytest.mark.thorough),
)
SIDE = 32
CROP_TABLE = pa.Table.from_pylist([crop_row(n, -1) for n in range(5)], schema=CROPS)


# ---------------------------------------------------------------- what the others rely on


def test_a_constant_left_on_the_host_and_a_value_read_back_are_noticed():
    conv, seen = nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8, device=META)
    with like_a_gpu(), pytest.raises(DevicesMeet, match="convolution"):
        conv(seen)
    with like_a_gpu(), pytest.raises(DevicesMeet, match="index"):
        seen[torch.tensor([0])]
    assert reads_back(lambda: seen[seen > 0])
    assert reads_back(lambda: float(seen.sum()))
    assert not reads_back(lambda: conv.to(META)(seen.to(META)) * torch.tensor(2.0))


# ---------------------------------------------------------------- embeddings


def embed_spec(model: str) -> dict[str, Any]:
    features = "both" if "vit" in model else "patch_mean"
    return {"backbone": model, "input_px": SIDE, "use_mask": True, "features": features}


def weights_of(model: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_backbone(model, None, SIDE).net.state_dict()


def bytes_of_crops() -> tuple[Tensor, Tensor]:
    images = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8, device=META)
    return images, images[:, :1]


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("model", ["wavelet", "proposer", *NETWORKS])
def test_backbones_of_embed(model: str, masked: bool):
    spec, weights = embed_spec(model), None
    if model == "proposer":
        weights = build_mask_rcnn(TINY, 1, 0).state_dict()
        spec = {"backbone": model, "detector": detector_spec(TINY, 1)}
    elif model != "wavelet":
        weights = weights_of(model)
    images, masks = bytes_of_crops()
    with like_a_gpu():
        found = open_backbone(spec, weights, "meta")(images, masks if masked else None)
    assert found.device.type == "meta"
    assert len(found) == 2


# ---------------------------------------------------------------- discovery


def encoder(model: str, **options: Any) -> EncoderConfig:
    return EncoderConfig.model_validate(
        {"body": model, "input_px": SIDE, "weights": "none", "weights_sha256": "0" * 64, **options}
    )


def trunk_spec(model: str, learns: Any) -> tuple[TrunkSpec, dict[str, Tensor]]:
    config = encoder(model, trainable=learns, cached_views=0)
    weights = weights_of(model)
    body = _measured(embed_spec(model), config, weights)
    return TrunkSpec(encoder=config, body=body, side_px=SIDE, cache_px=SIDE), weights


TRUNKS = [
    ("test_resnet", "none"), ("test_resnet", 1), ("test_resnet", "all"), ("test_convnext", 1),
    ("test_vit", "none"), ("test_vit", 1), ("test_vit", "all"),
    pytest.param(ROPE, 1, marks=pytest.mark.thorough),
]  # fmt: skip
HEADS = HeadsConfig.model_validate({"projection_hidden": 8, "projection_dim": 8})
NOVEL = NovelHeadsConfig.model_validate({})


def stored(method: str, model: str, learns: Any) -> StoredMethod:
    """A method with two snapshots, on a body of which so much learns."""
    trunk, weights = trunk_spec(model, learns)
    plain = dict(
        trunk=trunk.model_dump(mode="json"), heads=HEADS.model_dump(mode="json"),
        num_outputs=5, num_known=2, temperature=0.1, precision="bf16",
        novel=NOVEL.model_dump(mode="json"),
    )  # fmt: skip
    if method == "uno":
        network: nn.Module = build_uno(build_encoder(trunk, weights), HEADS, NOVEL, 2, 5)
    else:
        network = build_discovery_model(build_encoder(trunk, weights), HEADS, 5)
    file = memory_tensors(network.state_dict())
    others = {"trunk": memory_tensors(weights)} if trunk.frozen else {}
    return StoredMethod(method, plain, file, others, {1: file, 2: file})


def told_on_meta(method: StoredMethod) -> list[tuple[Tensor, Tensor]]:
    """What two snapshots say, before it is read back."""
    trained: Trained = method.open("meta")
    assert isinstance(trained, TrainedNetwork)
    return trained.said([trained.network] * 2, CROP_TABLE)


@pytest.mark.parametrize(("model", "learns"), TRUNKS)
def test_heads_on_every_kind_of_body(model: str, learns: Any):
    with like_a_gpu():
        found = told_on_meta(stored("simgcd", model, learns))
    assert [tuple(p.shape) for p, _ in found] == [(len(CROP_TABLE), 5)] * 2
    assert {t.device.type for pair in found for t in pair} == {"meta"}


def test_uno_reads_back_which_head_is_the_best():
    method = stored("uno", "test_resnet", 1)
    assert reads_back(lambda: told_on_meta(method))


@pytest.mark.parametrize("attention", [True, False])
def test_the_discovery_model_of_gcdis(attention: bool):
    model = RESNET.model_copy(
        update={"attention": RESNET.attention.model_copy(update={"enabled": attention})}
    )
    weights = memory_tensors(fresh_model(model, 5).state_dict())
    method = StoredMethod("gcdis", spec_of(model, 5), weights)
    with like_a_gpu():
        found = told_on_meta(method)
    assert found[0][0].shape == (len(CROP_TABLE), 5)
    assert reads_back(lambda: method.open("meta").infer(CROP_TABLE))  # once, at the end


def test_nearest_centres_read_back_their_answer_only(monkeypatch: pytest.MonkeyPatch):
    from gcdis_ray.clustering.spaces import Space

    space = Space(torch.zeros(4, device=META), torch.zeros(4, 3, device=META))
    centres = NearestCentre(space, torch.zeros(5, 3, device=META), 0.1, {}, None)
    crops = pa.table({"embedding": pa.array([[0.0] * 4] * 6, pa.list_(pa.float32()))})
    monkeypatch.setattr(Tensor, "cpu", lambda self: torch.zeros(self.shape))
    with like_a_gpu():
        found = centres.infer(crops)
    assert found.probabilities_NC.shape == (6, 5)


# ---------------------------------------------------------------- detectors


def detector_of(backbone: str, kind: str) -> Any:
    change = (
        {} if backbone == "small" else {"backbone": backbone, "anchor_sizes_px": (8, 16, 32, 64)}
    )
    config = DetectorConfig.model_validate(TINY.model_dump() | change)
    classifier = ClassifierConfig.model_validate({"kind": kind})
    return build_mask_rcnn(config, 3, 0, classifier).eval().to(META)


@pytest.mark.parametrize("kind", ["softmax", "cosine"])
@pytest.mark.parametrize("backbone", ["small", "test_resnet", "test_convnext", "test_vit"])
def test_detectors_up_to_suppression_and_their_heads(backbone: str, kind: str):
    model = detector_of(backbone, kind)
    images = ImageList(torch.zeros(2, 3, 64, 96, device=META), [(60, 90), (64, 80)])
    with like_a_gpu(), torch.inference_mode():
        levels = list(model._features(images).values())
        objectness, deltas = model.rpn.head(levels)
        anchors = model.rpn.anchor_generator(images, levels)
        for scores, corrections in zip(objectness, deltas, strict=True):
            assert scores.device.type == corrections.device.type == "meta"
        boxes = torch.cat(anchors)
        model.rpn.box_coder.decode(torch.zeros(len(boxes), 4, device=META), anchors)
        pooled = torch.zeros(7, model.config.fpn_channels, 7, 7, device=META)
        logits, corrections = model.heads.box_predictor(model.heads.box_head(pooled))
        assert logits.shape == (7, 4)
        assert corrections.device.type == "meta"
        assert model.mask_head(pooled).device.type == "meta"


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        *(("small", "softmax"), ("small", "cosine")),
        *((body, "cosine") for body in ("test_resnet", "test_convnext", "test_vit")),
    ],
)
def test_detectors_learn_through_all_but_suppression_and_sampling(backbone: str, kind: str):
    """Whatever of a training step does not depend on which regions it samples, and back: each
    parameter that learns gets its gradient there."""
    model = detector_of(backbone, kind).train()
    model.to_channels_last()
    images = [torch.zeros(3, *size, dtype=torch.uint8) for size in ((60, 90), (64, 80))]
    with like_a_gpu():
        features = model._features(model._images(images))
        said = [one for level in model.rpn.head(list(features.values())) for one in level]
        shapes = (7, model.config.fpn_channels, 7, 7)
        pooled = torch.zeros(shapes, device=META) + sum(m.mean() for m in features.values())
        said += model.heads.box_predictor(model.heads.box_head(pooled))
        wanted = torch.zeros(7, 14, 14, device=META)
        said.append(mask_loss(model.mask_head(pooled)[:, 0], wanted, wanted[:, 0, 0], 7))
        torch.stack([one.float().sum() for one in said]).sum().backward()
    unused = ".net.head."  # timm's classifier has a norm of its own
    learns = {k: p for k, p in model.named_parameters() if p.requires_grad and unused not in k}
    assert learns
    assert [name for name, p in learns.items() if p.grad is None] == []
    assert {p.grad.device.type for p in learns.values()} == {"meta"}


def test_suppression_reads_back():
    model = detector_of("small", "cosine")
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    limits = {"min_score": 0.0, "nms_iou": 0.5, "max_per_image": 5}
    assert reads_back(lambda: model.detect([image], **limits))
    assert Limits(**limits).score == "box"


# ---------------------------------------------------------------- rendering


AUGMENT = CropAugmentConfig.model_validate(
    {"rotation_deg": 20, "noise": 0.05, "elastic": 0.1, "erase": 0.5, "background": 0.5}
)


@pytest.mark.parametrize("augment", [CropAugmentConfig(), AUGMENT], ids=["default", "all"])
def test_views_are_rendered_on_the_device(augment: CropAugmentConfig):
    images = torch.randint(0, 256, (4, 3, 24, 24), dtype=torch.uint8)
    masks = torch.zeros(4, 1, 24, 24, dtype=torch.uint8)
    masks[:, :, 4:20, 4:20] = 255
    with like_a_gpu():
        there = upload_together(images, masks, META)
        seen, shape = random_view(
            images, masks, 16, augment, torch.Generator().manual_seed(0), there
        )
    assert (seen.shape, shape.shape) == ((4, 3, 16, 16), (4, 1, 16, 16))
    assert seen.device.type == shape.device.type == "meta"
