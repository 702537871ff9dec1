"""What an encoder's config says by itself, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from gcdis_ray.data.crops.augment_config import CropAugmentConfig
from gcdis_ray.methods.encoder_config import EncoderConfig

FILE = {"weights": "w.safetensors", "weights_sha256": "0" * 64}
PLAIN = CropAugmentConfig()


def encoder(**options: Any) -> EncoderConfig:
    return EncoderConfig.model_validate(options)


@pytest.mark.parametrize(
    ("options", "learns", "num_cached", "side_px"),
    [
        ({}, "none", 4, None),
        ({"cached_views": 0}, "none", 0, None),
        ({"trainable": 2, "cached_views": 7}, 2, 7, None),
        ({"trainable": "all"}, "all", 0, None),
        ({"body": "resnet"}, "all", 0, 32),
        ({"body": "resnet50", "input_px": 96, **FILE}, "none", 4, 96),
        ({"body": "resnet50", "trainable": "all"}, "all", 0, None),
    ],
)
def test_what_is_not_said_follows_from_the_body(options, learns, num_cached, side_px):
    found = encoder(**options)
    assert (found.learns, found.num_cached, found.side_px) == (learns, num_cached, side_px)
    found.check_start(PLAIN)
    again = EncoderConfig.model_validate(found.stored())
    assert (again.learns, again.num_cached, again.weights) == (learns, num_cached, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "resnet", **FILE}, "from scratch, without weights"),
        ({"body": "resnet", "trainable": "none"}, "set trainable: all"),
        ({"body": "resnet", "trainable": 1}, "set trainable: all"),
        ({"body": "resnet", "cached_views": 2}, "no output to cache"),
        ({"body": "resnet", "use_mask": True}, "mask_input shows it the mask"),
        ({"body": "resnet50", "widths": (8, 8, 8)}, "widths is of body resnet"),
        ({"mask_input": True}, "mask_input is of body resnet"),
        (FILE, "set weights there"),
        ({"input_px": 64}, "set input_px there"),
        ({"features": "both"}, "set features there"),
        ({"trainable": "all", "cached_views": 2}, "no output to cache"),
        ({"trainable": 0}, "greater than or equal to 1"),
        ({"body": "resnet", "blocks": (1, 1)}, "one entry per stage"),
    ],
)
def test_contradictions_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        encoder(**options)


def test_training_needs_weights_for_what_stays_and_crops_of_its_own_for_cached_views():
    with pytest.raises(ValueError, match="resnet50 is to stay as it is, and has no weights"):
        encoder(body="resnet50", trainable=1).check_start(PLAIN)
    swapped = CropAugmentConfig(background=0.5)
    with pytest.raises(ValueError, match=r"augment\.background takes another crop's"):
        encoder().check_start(swapped)
    encoder(cached_views=0).check_start(swapped)


def test_key_follows_the_weights_and_not_their_path():
    here = encoder(body="resnet50", **FILE).key_fields()
    assert here == encoder(body="resnet50", **FILE | {"weights": "elsewhere"}).key_fields()
    other = encoder(body="resnet50", **FILE | {"weights_sha256": "1" * 64})
    assert here != other.key_fields()
    assert here != encoder(body="resnet50", trainable="all", **FILE).key_fields()
    assert "w.safetensors" not in str(here)
