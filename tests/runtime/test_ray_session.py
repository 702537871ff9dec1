"""What can be known of Ray without starting it."""

from __future__ import annotations

import pytest

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import ConfigError, RuntimeUnavailable
from gcdis_ray.runtime.ray_session import RaySession, describe, local_cpus, text


def test_logical_cpus_leave_room_for_rays_helpers():
    assert local_cpus(ComputeConfig()) >= 4
    assert local_cpus(ComputeConfig(data_workers=50)) >= 50
    assert local_cpus(ComputeConfig(workers=100)) >= 50
    assert local_cpus(ComputeConfig(num_cpus=2)) == 2


def test_describe_starts_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "starts for each run" in describe(ComputeConfig())


def test_resources_in_words():
    assert text({"CPU": 4.0, "memory": 1e9, "GPU": 0.5}) == "4 CPU, 0.5 GPU"
    assert text({}) == "nothing"


def test_ray_client_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"ray://head:10001(.|\n)*ray job submit"):
        RaySession(ComputeConfig(address="ray://head:10001"))


def test_no_cluster_there():
    with pytest.raises(RuntimeUnavailable, match=r"compute\.address(.|\n)*next: "):
        RaySession(ComputeConfig(address="127.0.0.1:1"))


def test_not_an_address():
    with pytest.raises(ConfigError, match=r"HOST:PORT or auto"):
        RaySession(ComputeConfig(address="nowhere"))
