"""The loop in one process: repeatable, resumable, and honest about losses that blow up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from strategies import needs_deepspeed
from toy_training import ToyTask, digests, toy_config, toy_plan

from gcdis_ray.errors import ArtifactError, ConfigError, DataError
from gcdis_ray.store.artifacts import FileRecord
from gcdis_ray.store.storage import LocalStorage, open_storage
from gcdis_ray.training import loop
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.loop import train
from gcdis_ray.training.plan import FitPlan, Progress

MEMBERS = {"toy", "toy_spec", "history", "snapshot_3", "snapshot_6"}


class Stop(Exception):
    """Stands for whatever ends a process."""


def fit(
    plan: FitPlan, task: ToyTask, progress: list[Progress] | None = None
) -> dict[str, list[FileRecord]]:
    told = progress if progress is not None else []
    checkpoints = StoredCheckpoints(open_storage(plan.scratch_uri), plan.run)
    return train(task, plan, checkpoints, torch.device("cpu"), told.append)


def load(folder: Path, record: FileRecord) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "toy/0" / record.path)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of an uninterrupted run that never saved a checkpoint before its end."""
    plan = toy_plan(tmp_path_factory.mktemp("whole"), checkpoint_every_s=86400)
    return digests(fit(plan, ToyTask(toy_config())))


def test_members_and_repeatability(tmp_path: Path, expected: dict[str, str]):
    torch.rand(17)  # the state of torch's generator must not matter
    members = fit(toy_plan(tmp_path), ToyTask(toy_config()))
    assert set(members) == MEMBERS
    assert digests(members) == expected
    assert digests(fit(toy_plan(tmp_path / "other"), ToyTask(toy_config(), seed=4))) != expected


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5, 7])
def test_resume_at_any_step_gives_the_same_bytes(
    tmp_path: Path, expected: dict[str, str], stop_after: int, monkeypatch: pytest.MonkeyPatch
):
    plan, whole = toy_plan(tmp_path), StoredCheckpoints.save

    def save_then_die(self: StoredCheckpoints, step: int, write) -> None:
        whole(self, step, write)
        if step == stop_after:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(StoredCheckpoints, "save", save_then_die)
        with pytest.raises(Stop):
            fit(plan, ToyTask(toy_config()))
    told: list[Progress] = []
    assert digests(fit(plan, ToyTask(toy_config()), told)) == expected
    assert told[0].done == stop_after
    measured = {progress.done: progress.values for progress in told if progress.values}
    assert sorted(measured) == [step for step in (3, 6) if step > stop_after]  # none is left out
    assert all(list(values) == ["queue"] for values in measured.values())
    assert (told[-1].done, told[-1].total, told[-1].unit) == (8, 8, "steps")


def test_interrupted_by_bad_data_then_continued(tmp_path: Path, expected: dict[str, str]):
    plan = toy_plan(tmp_path)
    with pytest.raises(DataError, match="photo is broken"):
        fit(plan, ToyTask(toy_config(), fail_at=4))
    assert digests(fit(plan, ToyTask(toy_config()))) == expected


def test_steps_after_the_last_checkpoint_are_redone_once(tmp_path: Path, expected: dict[str, str]):
    """Snapshots of redone steps exist exactly once, with the bytes of an unbroken run."""
    plan = toy_plan(tmp_path, checkpoint_every_s=86400)
    with pytest.raises(DataError):
        fit(plan, ToyTask(toy_config(), fail_at=7))
    assert len(list(Path(plan.scratch_uri, "snapshots").iterdir())) == 2
    assert digests(fit(plan, ToyTask(toy_config()))) == expected


def test_finished_run_started_again_only_exports(tmp_path: Path, expected: dict[str, str]):
    plan = toy_plan(tmp_path)
    fit(plan, ToyTask(toy_config()))
    assert digests(fit(plan, ToyTask(toy_config(), fail_at=0))) == expected


class Noticed(StoredCheckpoints):
    """Notice is given once, when it is first asked for."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.saved, self.asked = list[int](), 0

    def save(self, step: int, write) -> None:
        self.saved.append(step)
        super().save(step, write)

    def urgent(self) -> bool:
        self.asked += 1
        return self.asked == 1


def test_a_notice_is_asked_for_now_and_then_and_saves_at_once(
    tmp_path: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loop, "NOTICE_EVERY_S", 0.0)
    plan = toy_plan(tmp_path, checkpoint_every_s=86400)
    checkpoints = Noticed(open_storage(plan.scratch_uri), plan.run)
    members = train(ToyTask(toy_config()), plan, checkpoints, torch.device("cpu"), lambda p: None)
    assert digests(members) == expected
    assert checkpoints.saved == [1, 8]
    assert checkpoints.asked == 8
    monkeypatch.setattr(loop, "NOTICE_EVERY_S", 3600.0)
    plan = toy_plan(tmp_path / "other", checkpoint_every_s=86400)
    checkpoints = Noticed(open_storage(plan.scratch_uri), plan.run)
    train(ToyTask(toy_config()), plan, checkpoints, torch.device("cpu"), lambda p: None)
    assert (checkpoints.saved, checkpoints.asked) == ([8], 0)


def test_not_a_number_names_the_step_and_is_not_saved(tmp_path: Path, expected: dict[str, str]):
    plan = toy_plan(tmp_path)
    with pytest.raises(DataError, match=r"not finite at step 6: fit, total(.|\n)*training\.lr"):
        fit(plan, ToyTask(toy_config(), nan_at=5))
    assert digests(fit(plan, ToyTask(toy_config()))) == expected


def test_gradient_is_the_mean_over_parts(tmp_path: Path):
    """One SGD step against the same computed by hand from all parts."""
    config = toy_config(steps=1, warmup=0, clip_norm=0, weight_decay=0, momentum=0)
    task = ToyTask(config)
    task.setup(torch.device("cpu"))
    record = fit(toy_plan(tmp_path), task)["toy"][0]
    trained = load(tmp_path, record)

    torch.manual_seed(task.seed)
    module = ToyTask(config).setup(torch.device("cpu"))
    module.net[3].p = 0.0
    reference = {name: value.clone() for name, value in module.state_dict().items()}
    running = torch.stack(
        [task.batch(0, part)["x"] @ reference["net.0.weight"].T for part in (0, 1)]
    )
    means = 0.9 * 0 + 0.1 * (running + reference["net.0.bias"]).mean(1)
    torch.testing.assert_close(trained["net.1.running_mean"], means.mean(0))
    assert int(trained["net.1.num_batches_tracked"]) == 1


def test_gradient_without_dropout_equals_full_batch_of_parts(tmp_path: Path):
    class Plain(ToyTask):
        def setup(self, device: torch.device) -> torch.nn.Module:
            module = super().setup(device)
            module.net[3].p = 0.0  # type: ignore[union-attr]
            return module

    config = toy_config(steps=1, warmup=0, clip_norm=0, weight_decay=0, momentum=0)
    task = Plain(config)
    trained = load(tmp_path, fit(toy_plan(tmp_path), task)["toy"][0])
    torch.manual_seed(task.seed)
    module = Plain(config).setup(torch.device("cpu"))
    losses = [module(task.batch(0, part))["total"] for part in (0, 1)]
    torch.stack(losses).mean().backward()
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(
            trained[name], parameter.detach() - config.lr * parameter.grad, msg=name
        )


def test_clipping_and_decay_apply(tmp_path: Path, expected: dict[str, str]):
    for index, change in enumerate([{"clip_norm": 1e-3}, {"weight_decay": 0.5}, {"lr": 0.01}]):
        members = fit(toy_plan(tmp_path / str(index)), ToyTask(toy_config(**change)))
        assert digests(members)["toy"] != expected["toy"], change


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_precision_and_optimizer_learns(tmp_path: Path, optimizer: str, precision: str):
    lr = 0.1 if optimizer == "sgd" else 0.02
    config = toy_config(steps=60, lr=lr, optimizer=optimizer, precision=precision)
    plan = toy_plan(tmp_path, checkpoint_every_s=86400)
    record = fit(plan, ToyTask(config))["history"][0]
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "toy/0" / record.path)
    losses = [row["value"] for row in table.to_pylist() if row["name"] == "fit"]
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    assert {"total", "fit", "lr", "queue"} == set(table["name"].to_pylist())
    assert len(losses) == 60


def test_two_drivers_alive_never_mix(tmp_path: Path, expected: dict[str, str]):
    """A second driver takes the training up while the first is at it and, as on a GPU, comes to
    other numbers."""
    plans = [toy_plan(tmp_path, attempt=name) for name in ("attempt-1", "attempt-2", "attempt-3")]
    members: list[dict[str, str]] = []

    def at_work(progress: Progress) -> None:
        if progress.done == 5 and not members:
            members.append(digests(fit(plans[1], ToyTask(toy_config(), seed=4))))

    checkpoints = StoredCheckpoints(open_storage(plans[0].scratch_uri), plans[0].run)
    monitored = ToyTask(toy_config())
    monitored.measured = lambda step: {"step": step}  # so that every step is told
    first = digests(train(monitored, plans[0], checkpoints, torch.device("cpu"), at_work))
    assert first == expected
    assert members[0]["snapshot_3"] == first["snapshot_3"]  # of the part that both share
    others = ("snapshot_6", "toy")
    assert all(members[0][name] != first[name] for name in others)
    told: list[Progress] = []
    third = digests(fit(plans[2], ToyTask(toy_config(), fail_at=0), told))
    assert told[0].done == 8
    assert third in (first, members[0])


def test_a_checkpoint_removed_while_it_is_read_says_to_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    plan = toy_plan(tmp_path)
    fit(plan, ToyTask(toy_config()))
    read = LocalStorage.read

    def gone(self: LocalStorage, path: str) -> bytes:
        if path.endswith("state.pt"):
            raise FileNotFoundError(path)
        return read(self, path)

    monkeypatch.setattr(LocalStorage, "read", gone)
    with pytest.raises(ArtifactError, match=r"is gone(.|\n)*run again"):
        fit(plan, ToyTask(toy_config()))


@needs_deepspeed
def test_checkpoint_of_another_strategy_is_refused(tmp_path: Path):
    from gcdis_ray.runtime.local import LocalRuntime

    plan = toy_plan(tmp_path, strategy="deepspeed")
    LocalRuntime(plan.compute).fit(ToyTask(toy_config()), plan, lambda progress: None)
    plan = toy_plan(tmp_path, strategy="ddp")
    with pytest.raises(
        ConfigError, match=r"deepspeed, zero_stage 1, 1 worker(.|\n)*compute\.strategy"
    ):
        fit(plan, ToyTask(toy_config()))
