from __future__ import annotations

from pathlib import Path

import pytest

from gcdis_ray.errors import ArtifactError
from gcdis_ray.store.storage import LocalStorage
from gcdis_ray.training.checkpoints import Snapshots, StoredCheckpoints


def save(checkpoints: StoredCheckpoints, step: int) -> None:
    checkpoints.save(step, lambda folder: (folder / "state.pt").write_text(str(step)) and None)


def latest(checkpoints: StoredCheckpoints) -> str | None:
    with checkpoints.latest() as folder:
        return (folder / "state.pt").read_text() if folder else None


def test_newest_is_found_and_two_are_kept(tmp_path: Path):
    checkpoints = StoredCheckpoints(LocalStorage(str(tmp_path)))
    assert latest(checkpoints) is None
    for step in (5, 10, 100, 1000):
        save(checkpoints, step)
        assert latest(checkpoints) == str(step)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_half_written_checkpoint_is_ignored_and_swept(tmp_path: Path):
    checkpoints = StoredCheckpoints(LocalStorage(str(tmp_path)))
    save(checkpoints, 1)

    def killed(folder: Path) -> None:
        (folder / "state.pt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(2, killed)
    half = tmp_path / "checkpoints" / "0000000003"  # files there, the marker not yet
    half.mkdir()
    (half / "state.pt").write_text("half")
    assert latest(checkpoints) == "1"
    for step in (4, 5):
        save(checkpoints, step)
    assert latest(checkpoints) == "5"
    assert not half.exists()


def test_missing_snapshot_says_what_to_do(tmp_path: Path):
    snapshots = Snapshots(LocalStorage(str(tmp_path)))
    snapshots.write(3, b"x")
    assert snapshots.read(3) == b"x"
    with pytest.raises(ArtifactError, match=r"step 4(.|\n)*remove"):
        snapshots.read(4)
