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
    checkpoints = StoredCheckpoints(LocalStorage(str(tmp_path)), "run")
    assert latest(checkpoints) is None
    for step in (5, 10, 100, 1000):
        save(checkpoints, step)
        assert latest(checkpoints) == str(step)
    assert len(list((tmp_path / "run").iterdir())) == 2


def test_the_newest_of_all_runs_is_found_and_no_run_removes_another_s(tmp_path: Path):
    storage = LocalStorage(str(tmp_path))
    one, two = StoredCheckpoints(storage, "one"), StoredCheckpoints(storage, "two")
    for step in (30, 40, 50):
        save(two, step)
    for step in (10, 20, 60, 70):
        save(one, step)
    assert sorted(p.name[-2:] for p in tmp_path.glob("two/*")) == ["40", "50"]
    assert latest(two) == "70"
    storage.delete("one")
    assert latest(one) == latest(two) == "50"


def test_half_written_checkpoint_is_ignored_and_swept(tmp_path: Path):
    checkpoints = StoredCheckpoints(LocalStorage(str(tmp_path)), "run")
    save(checkpoints, 1)

    def killed(folder: Path) -> None:
        (folder / "state.pt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(2, killed)
    half = tmp_path / "run" / "step-0000000003"  # files there, the marker not yet
    half.mkdir()
    (half / "state.pt").write_text("half")
    assert latest(checkpoints) == "1"
    for step in (4, 5):
        save(checkpoints, step)
    assert latest(checkpoints) == "5"
    assert not half.exists()


def test_a_snapshot_is_the_writer_s_own_or_an_error(tmp_path: Path):
    snapshots = Snapshots(LocalStorage(str(tmp_path)))
    snapshots.write(3, b"x")
    assert snapshots.read(3) == b"x"
    Snapshots(LocalStorage(str(tmp_path))).write(3, b"of another")
    assert snapshots.read(3) == b"x"
    again = Snapshots(LocalStorage(str(tmp_path)))
    again.load_state(snapshots.state())
    assert again.read(3) == b"x"
    (file,) = (f for f in (tmp_path / "snapshots").iterdir() if f.read_bytes() == b"x")
    file.write_bytes(b"y")
    with pytest.raises(ArtifactError, match=r"step 3 is changed(.|\n)*remove"):
        snapshots.read(3)
    file.unlink()
    with pytest.raises(ArtifactError, match=r"step 3 is gone(.|\n)*remove"):
        snapshots.read(3)
