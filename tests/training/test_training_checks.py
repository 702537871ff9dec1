from __future__ import annotations

import pytest

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.training import checks
from gcdis_ray.training.checks import check_bf16, check_workers

WHERE = "stages.discover.gcdis.training"


@pytest.mark.parametrize(("workers", "parts"), [(1, 2), (2, 2), (2, 4), (4, 4)])
def test_even_shares_pass(workers: int, parts: int):
    training = TrainingConfig(batch_size=8, micro_batches=parts)
    check_workers(training, ComputeConfig(workers=workers), where=WHERE)


def test_uneven_share_names_the_valid_worker_counts():
    training = TrainingConfig(batch_size=12, micro_batches=4)
    with pytest.raises(ConfigError, match=r"3 workers(.|\n)*\[1, 2, 4\]"):
        check_workers(training, ComputeConfig(workers=3), where=WHERE)


def test_local_runtime_has_one_worker_whatever_the_config_says():
    training = TrainingConfig(batch_size=12, micro_batches=4)
    check_workers(training, ComputeConfig(runtime="local", workers=3), where=WHERE)


def test_batch_must_split_into_parts():
    training = TrainingConfig(batch_size=9, micro_batches=2)
    with pytest.raises(ConfigError, match=r"batch_size 9"):
        check_workers(training, ComputeConfig(workers=1), where=WHERE)


@pytest.mark.parametrize(
    ("precision", "compute", "units", "refused"),
    [
        ("bf16", {}, False, True),
        ("bf16", {"runtime": "local"}, False, True),
        ("bf16", {"slow_bf16": True}, False, False),
        ("bf16", {"gpus_per_worker": 1}, False, False),
        ("bf16", {}, True, False),
        ("bf16", {}, None, False),  # nobody knows
        ("fp32", {}, False, False),
    ],
)
def test_bf16_without_units_for_it(
    monkeypatch: pytest.MonkeyPatch, precision, compute, units, refused: bool
):
    monkeypatch.setattr(checks, "has_bf16_units", lambda: units)
    training = TrainingConfig(precision=precision)
    if not refused:
        return check_bf16(training, ComputeConfig(**compute), where=WHERE)
    with pytest.raises(ConfigError, match=r"13 times(.|\n)*compute\.slow_bf16=true") as error:
        check_bf16(training, ComputeConfig(**compute), where=WHERE)
    assert f"{WHERE}.precision" in str(error.value)
