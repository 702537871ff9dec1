from __future__ import annotations

import pytest
import torch

from gcdis_ray.methods.gcdis.attention import soft_attention
from gcdis_ray.models.encoder import ResNetEncoder

SMALL = dict(
    block="basic",
    blocks=(1, 1, 1, 1),
    widths=(8, 16, 24, 32),
    stem_width=8,
    stem_kernel=3,
    stem_stride=2,
    stem_pool=False,
    attention=soft_attention((4, 3, 2), 8),
)
PAPER = SMALL | dict(
    block="bottleneck",
    blocks=(3, 4, 6, 3),
    widths=(256, 512, 1024, 2048),
    stem_width=64,
    stem_kernel=7,
    attention=soft_attention((18, 12, 8), 8),
)


@pytest.mark.parametrize(
    ("side", "pool", "stages"),
    [(32, False, [16, 8, 4, 2]), (32, True, [8, 4, 2, 1]), (37, False, [19, 10, 5, 3])],
)
def test_stage_sizes(side, pool, stages):
    encoder = ResNetEncoder(**SMALL | dict(stem_pool=pool))
    features, saliencies = encoder(torch.randn(2, 3, side, side))
    assert features.shape == (2, 32)
    assert [s.shape for s in saliencies] == [(2, 1, px, px) for px in stages]


def test_paper_encoder_has_its_stages_and_torchvision_names():
    import torchvision

    with torch.device("meta"):
        encoder = ResNetEncoder(**PAPER).eval()
        reference = torchvision.models.resnet50()
        features, saliencies = encoder(torch.randn(1, 3, 224, 224))
    assert features.shape == (1, 2048)
    assert [s.shape[-1] for s in saliencies] == [112, 56, 28, 14]
    ours = {n: v.shape for n, v in encoder.state_dict().items() if "attention" not in n}
    theirs = {n: v.shape for n, v in reference.state_dict().items() if not n.startswith("fc")}
    assert ours == theirs


def test_without_attention_no_saliency():
    features, saliencies = ResNetEncoder(**SMALL | dict(attention=None))(torch.randn(2, 3, 32, 32))
    assert saliencies == []
    assert features.isfinite().all()
