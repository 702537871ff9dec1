"""What a step of discovery asks of its device: no reading back, and bf16 where it is meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from on_meta import like_a_gpu
from toy_discovery import MIXED, make
from toy_training import toy_plan

from gcdis_ray.store.storage import open_storage
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.loop import TrainingRun


def start(folder: Path, device: str, **changes) -> TrainingRun:
    plan = toy_plan(folder, checkpoint_every_s=86400)
    checkpoints = StoredCheckpoints(open_storage(plan.scratch_uri), plan.run)
    task = make(MIXED, **{"prototypes": {"start": "random"}, **changes})
    return TrainingRun(task, plan, checkpoints, torch.device(device), lambda progress: None)


@pytest.mark.parametrize(
    ("negatives", "mode", "begins"),
    [
        ("queue", "instance", "random"),
        ("batch", "cosine", "random"),
        *(
            pytest.param(*other, marks=pytest.mark.thorough)
            for other in [
                ("queue", "fixed", "placed"),
                ("queue", "cosine", "placed"),
                ("batch", "instance", "placed"),
                ("batch", "fixed", "random"),
            ]
        ),
    ],
)
def test_a_step_reads_nothing_back_from_its_device(
    tmp_path: Path, mode: str, negatives: str, begins: str
):
    """Views are rendered there, and prototypes placed. Only once an epoch, for new temperatures,
    one value is read."""
    with like_a_gpu():
        run = start(
            tmp_path,
            "meta",
            temperature={"mode": mode, "warmup_epochs": 99},
            negatives=negatives,
            prototypes={"start": begins},
            placed=[n % 4 for n in range(len(MIXED))],
        )
        for step in range(3):  # from an empty queue to one that wraps, beyond placing
            parts = [run.task.batch(step, part) for part in (0, 1)]
            assert {part["images"].device.type for part in parts} == {"meta"}
            run.step(step, [run.to_device(part) for part in parts])
        assert run.task.placement.is_due(2) == (begins == "placed")
    with pytest.raises(NotImplementedError):
        list(run.readings.take())


def test_bf16_holds_in_both_encoders_and_spares_what_is_divided_by_a_temperature(tmp_path: Path):
    run, seen = start(tmp_path, "cpu", training={"precision": "bf16"}), []

    def look(module, inputs, output) -> None:
        seen.append((module.training, output.dtype, output.stride()[1]))

    for model in (run.task.objective.model, run.task.teacher.module):
        model.encoder.layer1.register_forward_hook(look)
    parts = run.task.prepare([run.task.batch(0, part) for part in (0, 1)], run.exchange)
    with torch.autocast("cpu", torch.bfloat16):
        found = run.task.objective.model(parts[0]["images"])
        losses = run.task.objective(parts[0])
    assert seen[0] == (False, torch.bfloat16, 1)  # channels last: their stride is 1
    assert seen[-1] == (True, torch.bfloat16, 1)
    assert parts[0]["keys"].dtype == found.cosines_NK.dtype == torch.float32
    assert found.projections_ND.dtype == torch.float32
    torch.testing.assert_close(
        found.projections_ND.norm(dim=1), torch.ones(len(found.projections_ND))
    )
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    shares = run.task.objective.seen_headness[-1]  # differ by little: three digits would not do
    assert shares.dtype == torch.float32
    assert not torch.equal(shares, shares.bfloat16().float())
