"""The fixed filter bank: what must not change an embedding, and what must."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gcdis_ray.backbones.wavelet import Wavelet


def _images(num: int = 3, side: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, side, side), generator=generator, dtype=torch.uint8)


def _stroke(x0: int, x1: int) -> torch.Tensor:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 4:28, x0:x1] = 100
    return image


def test_wavelet_forgets_contrast_brightness_and_sign() -> None:
    net = Wavelet()
    image = _stroke(12, 18)
    want = net(image, None)
    assert want.shape == (1, 8 * 5 * 5)
    for other in (image * 2, image + 40, 200 - image):
        torch.testing.assert_close(net(other, None), want, atol=2e-3, rtol=0)
    assert torch.equal(net(image, None), want)


def test_wavelet_sees_orientation_and_the_mask() -> None:
    net = Wavelet()
    image = _stroke(12, 18)
    turned = image.transpose(2, 3)
    assert float((net(image, None) * net(turned, None)).sum()) < 0.8
    mask = (image[:, :1] > 0).to(torch.uint8) * 255
    both = net(image, mask)
    assert both.shape == (1, 2 * 8 * 5 * 5)
    assert not torch.allclose(both, net(image, mask.transpose(2, 3)), atol=1e-2)
    # an outline has a direction: a hole is not a blob
    assert not torch.allclose(both, net(image, 255 - mask), atol=1e-2)


def test_wavelet_energy_equals_a_slow_filter() -> None:
    net, image = Wavelet(sigmas_px=(1.0,), num_orientations=4, grid=1), _images(1, 16)
    light = (image[0].float() / 255 * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0)
    x = np.arange(-3, 4)
    bell = np.exp(-(x**2) / 2)
    bell /= bell.sum()
    slope = x * bell
    padded = np.pad(light.numpy(), 3, mode="edge")
    energy = np.zeros(4)
    for row in range(16):
        for column in range(16):
            part = padded[row : row + 7, column : column + 7]
            across, down = float(bell @ part @ slope), float(slope @ part @ bell)
            strength, direction = np.hypot(across, down), 2 * np.arctan2(down, across)
            for o in range(4):
                energy[o] += strength * max(np.cos(direction - o * np.pi / 2), 0) ** 2
    want = np.sqrt(energy) / np.linalg.norm(np.sqrt(energy))
    np.testing.assert_allclose(net(image, None)[0].numpy(), want, atol=1e-4)


@pytest.mark.parametrize("with_mask", [True, False])
def test_rows_have_length_one_and_do_not_depend_on_one_another(with_mask: bool) -> None:
    images = _images(5)
    images[3] = 7  # a blank crop
    masks = (_images(5, seed=1)[:, :1] > 128).to(torch.uint8) * 255 if with_mask else None
    features = Wavelet()(images, masks)
    assert torch.isfinite(features).all()
    alone = Wavelet()(images[1:2], None if masks is None else masks[1:2])
    torch.testing.assert_close(features[1:2], alone)
    lengths = features.norm(dim=1)
    torch.testing.assert_close(lengths[[0, 1, 2, 4]], torch.ones(4))
