"""The discovery task in the real loop: resumed anywhere, on two workers, under DeepSpeed.

All cases of two workers share one pair of processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from strategies import can_be_had, needs_deepspeed
from toy_discovery import MIXED, make
from toy_training import FolderCheckpoints, digests, toy_plan
from two_workers import run_in_two

from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.training.loop import train
from gcdis_ray.training.plan import FitPlan

STEPS = 12  # 17 crops in batches of 12: an epoch ends, and headness is used, every second step
BASIC: dict[str, Any] = dict(losses={"clustering_from": 0.25}, queue_size=21)
OTHER: dict[str, Any] = dict(
    training={"optimizer": "adamw", "lr": 0.005, "precision": "bf16", "clip_norm": 0.5},
    temperature={"mode": "cosine"},
    target={"kind": "sharpen", "warm_temperature": 0.2, "warm_share": 0.5},
    losses={"clustering_from": 0.25, "balance": 1.0},
    negatives="batch",
    momentum_start=0.5,
    prototypes={"start": "kmeans"},
    labeled_share=None,
)
HELD: dict[str, Any] = BASIC | dict(hold_out=HoldOut((0,), (1,)), measure_every=3)
CLIPPED = {"clip_norm": 0.3}  # of norms above 1; and rounding does not grow from step to step
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ddp": (BASIC, {}),
    "ddp_other": (OTHER, {}),
    "ddp_held": (HELD, {}),
    "ddp_four_parts": (BASIC | dict(training=CLIPPED | {"micro_batches": 4}), {}),
    "zero1": (BASIC | dict(training=CLIPPED), {"strategy": "deepspeed"}),
    "zero2": (BASIC | dict(training=CLIPPED), {"strategy": "deepspeed", "zero_stage": 2}),
    "zero2_bf16": (
        BASIC | dict(training=CLIPPED | {"precision": "bf16"}),
        {"strategy": "deepspeed", "zero_stage": 2},
    ),
}
LEAVE, RETURN = 4, 8  # one worker up to the first, two up to the second, then one again


def task_of(case: str) -> DiscoveryTask:
    return make(MIXED, STEPS, snapshot_steps=[5, STEPS], **CASES[case][0])


def flat(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every tensor and number of a state, by a name."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from flat(value, f"{name}/{key}")
    else:
        yield name, state


class Outcome:
    """What a run leaves: bytes of its members, loss trace, and the task's state at the end."""

    def __init__(self, digest: dict[str, str], history: Path | None, state: Any) -> None:
        self.digest, self.state = digest, dict(flat(state))
        self.trace: dict[str, list[float]] = {}
        for row in pq.read_table(history).to_pylist() if history else []:
            self.trace.setdefault(row["name"], []).append(row["value"])


def run(case: str, plan: FitPlan, folder: Path, checkpoints: FolderCheckpoints) -> Outcome:
    task = task_of(case)
    members = train(task, plan, checkpoints, torch.device("cpu"), lambda progress: None)
    history = folder / "toy/0" / members["history"][0].path if members else None
    state = {**task.state(), "student": task.snapshot()}
    return Outcome(digests(members), history, state)


def worker(rank: int, folder: str, one: str) -> None:
    """Every case on two workers; then a run of one worker goes on with two."""
    for case, (_, compute) in CASES.items():
        if not can_be_had(compute):
            continue
        base = Path(folder, case)
        plan, checkpoints = toy_plan(base, **compute), FolderCheckpoints(base / "checkpoints")
        outcome = run(case, plan, base, checkpoints)
        torch.save(vars(outcome), base / f"outcome{rank}.pt")
        if case == "zero1":
            again = FolderCheckpoints(base / "checkpoints", start=5, save=False)
            torch.save(vars(run(case, plan, base, again)), base / f"again{rank}.pt")
    shared = FolderCheckpoints(Path(one) / "checkpoints", start=LEAVE, save=False)
    middle = FolderCheckpoints(Path(folder, "middle/checkpoints"))
    middle.latest = shared.latest
    run("ddp", toy_plan(Path(folder, "middle")), Path(folder, "middle"), middle)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Outcome]]:
    """Cases without DeepSpeed in this process, never interrupted, every checkpoint kept."""
    found = {}
    for case in CASES:
        if case != "zero2":  # in one process the same as zero1
            folder = tmp_path_factory.mktemp(case)
            checkpoints = FolderCheckpoints(folder / "checkpoints")
            found[case] = folder, run(case, toy_plan(folder), folder, checkpoints)
    return found | {"zero2": found["zero1"]}


@pytest.fixture(scope="module")
def two(one: dict[str, tuple[Path, Outcome]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run_in_two(worker, folder, str(one["ddp"][0]))
    return folder


def outcome(two: Path, case: str, rank: int = 0, name: str = "outcome") -> Outcome:
    found = Outcome({}, None, {})
    vars(found).update(torch.load(two / case / f"{name}{rank}.pt"))
    return found


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
        for name, value in a.items()
    )


@pytest.mark.parametrize(
    ("case", "stop"),
    [("ddp", stop) for stop in range(1, STEPS)]
    + [("ddp_other", stop) for stop in (1, 3, 7, 11)]
    + [("ddp_held", 7)],
)
def test_resume_at_any_step_gives_the_same_trace_and_state_bit_by_bit(
    one: dict[str, tuple[Path, Outcome]], case: str, stop: int
):
    folder, whole = one[case]
    checkpoints = FolderCheckpoints(folder / "checkpoints", start=stop, save=False)
    resumed = run(case, toy_plan(folder), folder, checkpoints)
    assert len(whole.trace["total"]) == STEPS
    assert resumed.trace == whole.trace
    assert resumed.digest == whole.digest
    assert same(resumed.state, whole.state)


@pytest.mark.parametrize(
    "part", ["module", "optimizer", "step", "teacher", "keys", "targets", "temperatures"]
)
def test_nothing_in_a_checkpoint_is_there_in_vain(
    one: dict[str, tuple[Path, Outcome]], tmp_path: Path, part: str
):
    """With one of its parts from two steps earlier, the trace is another one."""
    folder, whole = one["ddp"]
    stop, target = LEAVE + 1, tmp_path / f"{LEAVE + 1:010d}"
    target.mkdir()
    files = {step: folder / "checkpoints" / f"{step:010d}" for step in (stop, stop - 2)}
    state, earlier = (torch.load(file / "state.pt") for file in files.values())
    if part in state["task"]:
        state["task"][part] = earlier["task"][part]
    elif part in state:
        state[part] = earlier[part]
    torch.save(state, target / "state.pt")
    optimizer = files[stop - 2 if part == "optimizer" else stop] / "optimizer.pt"
    (target / "optimizer.pt").write_bytes(optimizer.read_bytes())
    checkpoints = FolderCheckpoints(tmp_path, start=stop, save=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiscoveryTask, "is_snapshot", lambda self, step: False)
        resumed = run("ddp", toy_plan(tmp_path), tmp_path, checkpoints)
    assert resumed.trace["total"][-5:] != whole.trace["total"][-5:]


@pytest.mark.thorough
@pytest.mark.parametrize("case", ["ddp", "ddp_other", "ddp_held"])
def test_two_workers_equal_one_bit_by_bit(
    one: dict[str, tuple[Path, Outcome]], two: Path, case: str
):
    """Keys of both ranks in the queue, percentiles over all instances: each rank has the whole."""
    whole = one[case][1]
    pair = [outcome(two, case, rank) for rank in (0, 1)]
    assert pair[0].trace == whole.trace
    assert pair[0].digest == whole.digest
    assert all(same(half.state, whole.state) for half in pair)
    assert int(whole.state["/keys/num_valid"]) == 21
    assert len(set(whole.state["/keys/instances"].tolist())) > 6  # more than one part's crops
    if case == "ddp":
        assert whole.state["/temperatures/temperatures"].unique().numel() > 2
    if case == "ddp_held":
        assert [step for step, _ in whole.state["/curve/points"]] == [3, 6, 9, 12]


@pytest.mark.thorough
def test_more_parts_than_workers_give_the_same_losses(
    one: dict[str, tuple[Path, Outcome]], two: Path
):
    whole, pair = one["ddp_four_parts"][1], outcome(two, "ddp_four_parts")
    for name, values in whole.trace.items():
        assert pair.trace[name] == pytest.approx(values, rel=1e-3, abs=1e-4), name


@pytest.mark.thorough
def test_from_one_worker_to_two_and_back(one: dict[str, tuple[Path, Outcome]], two: Path):
    folder, whole = one["ddp"]
    checkpoints = FolderCheckpoints(two / "middle/checkpoints", start=RETURN, save=False)
    resumed = run("ddp", toy_plan(folder), folder, checkpoints)
    kept = sorted(path.name for path in (two / "middle/checkpoints").iterdir())
    assert kept == [f"{step:010d}" for step in range(LEAVE + 1, STEPS + 1)]
    assert resumed.trace == whole.trace
    assert resumed.digest == whole.digest
    assert same(resumed.state, whole.state)


@pytest.mark.thorough
@needs_deepspeed
@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("zero")])
def test_deepspeed_equals_ddp_with_momentum_encoder_and_queue_beside_it(
    one: dict[str, tuple[Path, Outcome]], two: Path, case: str
):
    whole, pair = one[case][1], [outcome(two, case, rank) for rank in (0, 1)]
    assert same(pair[0].state, pair[1].state)
    rough = case.endswith("bf16")  # gradients of three digits, summed in another order
    rel, rtol, atol = (0.1, 0.1, 0.05) if rough else (1e-3, 1e-3, 1e-4)
    for name, values in whole.trace.items():
        assert pair[0].trace[name] == pytest.approx(values, rel=rel, abs=rel / 10), name
    for name, value in whole.state.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            if not (rough and name.startswith("/temperatures")):  # ranks of nearly equal values
                torch.testing.assert_close(
                    pair[0].state[name], value, rtol=rtol, atol=atol, msg=name
                )
        elif isinstance(value, torch.Tensor):
            assert torch.equal(pair[0].state[name], value), name
    if rough:
        assert pair[0].trace["total"] != outcome(two, "zero2").trace["total"]


@pytest.mark.thorough
@needs_deepspeed
def test_deepspeed_resumes_bit_by_bit(two: Path):
    for rank in (0, 1):
        first, again = (outcome(two, "zero1", rank, name) for name in ("outcome", "again"))
        assert again.trace == first.trace
        assert same(again.state, first.state)


def test_clipping_is_felt(one: dict[str, tuple[Path, Outcome]]):
    clipped, free = one["zero1"][1].trace, one["ddp"][1].trace
    assert clipped["total"][0] == free["total"][0]
    assert clipped["total"][1] != free["total"][1]
