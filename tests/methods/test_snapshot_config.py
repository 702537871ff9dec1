"""When snapshots are kept, and what cannot be trained."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.snapshot_config import SnapshotConfig


class Config(SnapshotConfig):
    method: ClassVar[str] = "toy"


def config(**changes: Any) -> Config:
    return Config.model_validate(changes)


def test_they_are_spread_over_the_last_part_and_the_last_is_the_end():
    kept = config(snapshots=3, snapshots_from=0.4)
    assert kept.snapshot_steps(100) == [60, 80, 100]
    assert kept.first_snapshot() == pytest.approx(0.6)
    assert kept.snapshot_steps(4) == [2, 3, 4]


def test_too_short_a_training_is_named():
    with pytest.raises(ConfigError, match="no room for two snapshots") as error:
        config(training={"steps": 1})
    assert error.value.where == "stages.discover.toy.training"
    assert config(training={"steps": 1, "epochs": 3})  # steps follow from the crops
    with pytest.raises(ValueError, match="two crops per part"):
        config(training={"batch_size": 3, "micro_batches": 2})


def test_memory_is_not_in_the_key():
    assert config(cache_mb=1).key_fields() == config().key_fields()
