"""How far a stage is, read by somebody else from its storage alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.underway import Underway, underway
from gcdis_ray.store.storage import LocalStorage

BASE = "stage/key"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(str(tmp_path))


def _attempt(storage: LocalStorage, name: str = "a", base: str = BASE) -> Attempt:
    return Attempt(storage, base, f"attempt-{name}")


def _seen(storage: LocalStorage) -> tuple[str, int, int, str] | None:
    far = underway(storage, BASE)
    return far and (far.part, far.done, far.total, far.unit)


def test_shards_of_all_attempts_count_once(storage: LocalStorage):
    assert _seen(storage) is None
    for name, indices in (("a", (0, 1)), ("b", (1, 2))):
        attempt = _attempt(storage, name)
        attempt.begin("images+labels", 5, "shards")
        for index in indices:
            attempt.finish(f"images+labels/{index:05d}", {}, {})
    assert _seen(storage) == ("images+labels", 3, 5, "shards")


def test_a_part_that_is_done_is_not_underway(storage: LocalStorage):
    attempt = _attempt(storage)
    attempt.begin("crops", 1, "shards")
    attempt.finish("crops/00000", {}, {})
    assert _seen(storage) is None
    attempt.begin("assigned.cuda-bf16.0123", 2, "shards")
    assert _seen(storage) == ("assigned", 0, 2, "shards")


def test_a_training_is_as_far_as_its_newest_whole_checkpoint(storage: LocalStorage):
    attempt = _attempt(storage)
    attempt.begin("fit/encoder", 100, "steps")
    assert _seen(storage) == ("encoder", 0, 100, "steps")
    for file in ("b/step-0000000030/complete", "a/step-0000000040/complete", "b/step-0000000080/x"):
        storage.write(f"{BASE}/train/{file}", b"1")
    storage.write(f"{BASE}/train/snapshots/0000000099-ab.safetensors", b"1")
    assert _seen(storage) == ("encoder", 40, 100, "steps")
    attempt.finish("fit/encoder", {}, {})
    assert _seen(storage) is None


def test_a_trial_is_named(storage: LocalStorage):
    trial = _attempt(storage, base=f"{BASE}/trials/simgcd-0")
    trial.begin("fit/model", 60, "steps")
    storage.write(f"{BASE}/trials/simgcd-0/train/a/step-0000000030/complete", b"")
    storage.write(f"{BASE}/trials/other/train/a/step-0000000050/complete", b"")
    assert _seen(storage) == ("simgcd-0/model", 30, 60, "steps")


def test_it_says_when_anything_was_written(storage: LocalStorage):
    _attempt(storage).begin("crops", 2, "shards")
    far = underway(storage, BASE)
    assert isinstance(far, Underway)
    assert 0 <= far.idle_s < 60
    assert set(far.as_json()) == {"part", "done", "total", "unit", "idle_s"}
