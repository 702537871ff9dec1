"""The fifteen defects of the published discovery code, each kept out of ours by a test.

Every test runs the real task. The last one puts each defect into our code, one after another, and
wants its test to fail: so none of them passes by accident.
"""

from __future__ import annotations

import ast
import math
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toy_training
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from toy_discovery import MIXED, Run, make

import gcdis_ray
from gcdis_ray.losses.clustering import classification_loss
from gcdis_ray.methods import crop_views, discovery_model
from gcdis_ray.methods.gcdis import objective
from gcdis_ray.methods.gcdis.headness import HeadnessTable
from gcdis_ray.methods.gcdis.task import DiscoveryTask
from gcdis_ray.models.heads import CosineClassifier
from gcdis_ray.models.momentum import MomentumEncoder
from gcdis_ray.models.queue import FeatureQueue
from gcdis_ray.store.storage import open_storage
from gcdis_ray.training import loop
from gcdis_ray.training.checkpoints import StoredCheckpoints
from gcdis_ray.training.schedule import learning_rate

PAPER: dict[str, Any] = dict(losses={"clustering_from": 0.0}, prototypes={"start": "random"})
BATCH = 12


def trained(steps: int, labels: list[int] = MIXED, **changes: Any) -> Run:
    run = Run(make(labels, **{**PAPER, **changes}))
    for step in range(steps):
        run.step(step)
    return run


def teacher_state(run: Run) -> dict[str, Tensor]:
    state = run.task.teacher.module.state_dict()
    return {name: value.clone() for name, value in state.items()}


def student_state(run: Run) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.task.snapshot().items()}


# ------------------------------------------------------------------ one test per defect


def test_01_the_clustering_loss_trains_the_encoder_and_the_prototypes():
    run = trained(1)
    loss = run.module(run.parts(1)[0])["clustering"]
    assert loss.requires_grad
    loss.backward()
    trained_by_it = [run.module.model.encoder, run.module.model.classifier]
    for name, parameter in torch.nn.ModuleList(trained_by_it).named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for p in run.task.teacher.module.parameters())


def test_02_student_and_momentum_encoder_see_two_views_in_other_colours():
    run = trained(1)
    part = run.parts(1)[0]
    between = (part["images"] - part["second"]).abs().amax(dim=(1, 2, 3))
    assert bool((between > 0.01).all())
    keys = run.task.teacher.module(part["second"]).projections_ND
    torch.testing.assert_close(part["keys"][part["own"]], keys)
    still = dict(min_area=1.0, max_aspect=1.0, flip=False, grey=0.0, blur=0.0)
    moved = {}
    for jitter in (0.0, 1.0):
        part = Run(make(MIXED, augment=still | dict(jitter=jitter))).task.batch(0, 0)
        moved[jitter] = (part["images"] - part["second"]).abs().amax(dim=(1, 2, 3))
    assert bool((moved[0.0] < 1e-5).all())  # nothing but colour differs
    assert bool((moved[1.0] > 0.01).all())


def test_03_the_momentum_encoder_starts_as_the_student_bit_by_bit():
    run = trained(0)
    student, teacher = run.module.model.state_dict(), teacher_state(run)
    assert student.keys() == teacher.keys()
    for name, value in student.items():
        assert torch.equal(value, teacher[name]), name


def test_04_the_momentum_encoder_follows_every_step_with_its_buffers():
    run = trained(0, momentum=0.999)
    for step in range(3):
        before = teacher_state(run)
        run.step(step)
        after, student = teacher_state(run), student_state(run)
        for name, value in after.items():
            if not value.is_floating_point():
                assert torch.equal(value, student[name]), name
                continue
            expected = 0.999 * before[name].double() + 0.001 * student[name].double()
            torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7, msg=name)
        for kind in ("conv1.weight", "running_var"):
            moved = [n for n in after if n.endswith(kind) and not after[n].equal(before[n])]
            assert moved
    assert not any(module.training for module in run.task.teacher.module.modules())


def test_05_supervised_contrast_has_negatives_and_the_own_key_is_positive():
    run = trained(3)
    part = run.parts(3)[0]
    loss = float(run.module(part)["class"].detach())
    found = run.module.model(part["images"]).projections_ND.detach()
    labeled = F.normalize(found[part["labels"] >= 0].sum(dim=0), dim=0)
    free = (part["key_labels"] < 0)[:, None]
    assert bool(free.any())
    closer = {**part, "keys": torch.where(free, labeled, part["keys"])}
    assert float(run.module(closer)["class"].detach()) > loss + 1e-3  # other keys come closer

    alone = trained(0, [*range(6), *[-1] * 6], num_classes=8)  # no class has a second key
    for part in alone.parts(0):
        found = alone.module.model(part["images"]).projections_ND
        log_p = torch.log_softmax(found @ part["keys"].T / part["temperatures"][:, None], dim=1)
        own = log_p.gather(1, part["own"][:, None])[:, 0]
        expected = -own[part["labels"] >= 0].mean()
        torch.testing.assert_close(alone.module(part)["class"], expected)


def test_06_cross_entropy_is_of_cosines_over_the_temperature():
    run = trained(2)
    part = run.parts(2)[0]
    cosines = run.module.model(part["images"]).cosines_NK
    known = part["labels"] >= 0
    expected = F.cross_entropy(cosines[known] / 0.1, part["labels"][known])
    torch.testing.assert_close(run.module(part)["supervised"], expected)
    perfect = torch.eye(1200)[:2]
    assert float(objective.classification_loss(perfect, torch.arange(2), 0.1, 2)) < 0.06


def test_07_headness_is_a_running_mean_of_what_was_measured():
    update, seen = HeadnessTable.update, []

    def spy(table: HeadnessTable, instances: Tensor, values: Tensor) -> None:
        seen.append((instances.tolist(), values.tolist()))
        update(table, instances, values)

    with mock.patch.object(HeadnessTable, "update", spy):
        run = trained(6)
    sums, weights = np.zeros(len(MIXED)), np.zeros(len(MIXED))
    for instances, values in seen:
        for index in set(instances):
            mine = [v for i, v in zip(instances, values, strict=True) if i == index]
            sums[index] = 0.97 * sums[index] + 0.03 * np.mean(mine)
            weights[index] = 0.97 * weights[index] + 0.03
    assert weights.min() > 0.05  # everyone came more than once
    found = run.task.export()["instance_state"]["headness"].numpy()
    np.testing.assert_allclose(found, sums / weights, rtol=1e-5)


def test_08_headness_leaves_out_own_old_keys_the_unseen_and_equal_percentiles():
    run = trained(3)  # 17 crops, 21 keys queued: many anchors have an old key
    part = run.parts(3)[0]
    found = run.module.model(part["images"]).projections_ND.detach()
    run.module.seen_headness.clear()
    run.module(part)
    stale = 0
    for row, measured in enumerate(run.module.seen_headness[0].tolist()):
        foreign = part["key_instances"] != part["instances"][row]
        stale += int((~foreign).sum()) - 1
        weights = torch.exp(part["keys"][foreign] @ found[row]).sort(descending=True).values
        near = max(1, round(0.01 * len(part["keys"])))
        assert measured == pytest.approx(float(weights[:near].sum() / weights.sum()), rel=1e-5)
    assert stale > 0

    labels = [0, 1] * 5 + [-1] * 30
    state = trained(4, labels).task.export()["instance_state"]  # an epoch is 4 steps
    headness, temperature = state["headness"].numpy(), state["temperature"].numpy()
    met = headness > 0
    assert 10 < met.sum() < len(labels)  # some were never drawn
    low, high = np.percentile(headness[met], [10, 90])
    share = np.clip((headness[met] - low) / (high - low), 0, 1)
    np.testing.assert_allclose(temperature[met], 0.07 + 0.93 * share, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(temperature[~met], 0.07, rtol=1e-6)

    flat = trained(4, temperature={"neighbor_share": 1.0})  # all keys are near: headness 1 for all
    state = flat.task.export()["instance_state"]
    np.testing.assert_allclose(state["headness"].numpy(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(state["temperature"].numpy(), 0.07, rtol=1e-6)


def test_09_the_queue_wraps_at_any_batch_size_shows_filled_slots_only_and_is_its_tasks_own():
    for capacity in (5, 12, 21, 1000):
        run, kept = trained(0, queue_size=capacity), deque(maxlen=capacity)
        mass = 0.0
        for step in range(5):
            part = run.parts(step)[0]
            rows = zip(part["key_instances"].tolist(), part["keys"].tolist(), strict=True)
            now, queued = (lambda all_rows: (all_rows[:BATCH], all_rows[BATCH:]))(list(rows))
            assert sorted(queued) == sorted(kept)
            assert part["num_contrasted"] == BATCH + len(kept)
            torch.testing.assert_close(part["keys"].norm(dim=1), torch.ones(len(part["keys"])))
            mass = mass * max(0.0, 1 - BATCH / capacity) + BATCH
            assert float(part["mass"].sum()) == pytest.approx(mass, rel=1e-5)
            kept.extend(now)
            run.step(step)

    alone = [trained(0).step(0)["instance"], trained(0, queue_size=7).step(0)["instance"]]
    pair = [trained(0), trained(0, queue_size=7)]
    assert [run.step(0)["instance"] for run in pair] == alone  # two tasks side by side
    assert [len(run.parts(1)[0]["keys"]) for run in pair] == [BATCH + 12, BATCH + 7]


def test_10_a_batch_without_labels_gives_finite_losses_and_gradients():
    for labels in ([-1] * 14, [0] + [-1] * 30):
        run = trained(2, labels, labeled_share=None)
        bare = 0
        for part in [*run.parts(2), *run.parts(3)]:
            losses = run.module(part)
            losses["total"].backward()
            assert all(bool(loss.isfinite()) for loss in losses.values())
            if not bool((part["labels"] >= 0).any()):
                bare += 1
                assert float(losses["supervised"].detach()) == 0
                assert float(losses["class"].detach()) == 0
        assert bare > 0
        gradients = [p.grad for p in run.module.parameters() if p.grad is not None]
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_11_the_learning_rate_follows_its_schedule_and_snapshots_are_saved():
    training = {"final_lr_ratio": 0.0, "warmup": 0.0, "momentum": 0.0}
    task = make(MIXED, 6, training=training, snapshot_steps=[2, 4, 5, 6], **PAPER)
    with tempfile.TemporaryDirectory() as folder:
        plan = toy_training.toy_plan(Path(folder))
        checkpoints = StoredCheckpoints(open_storage(plan.scratch_uri), plan.run)
        members = loop.train(task, plan, checkpoints, torch.device("cpu"), lambda progress: None)
        paths = {name: Path(folder, "toy/0", files[0].path) for name, files in members.items()}
        rows = pq.read_table(paths["history"]).to_pylist()
        kept = {step: load_file(paths[f"snapshot_{step}"]) for step in (2, 4, 5, 6)}
    rates = [row["value"] for row in rows if row["name"] == "lr"]
    assert rates == pytest.approx([learning_rate(task.config, step) for step in range(6)])
    assert rates[0] == pytest.approx(0.05)
    weight = {step: state["encoder.conv1.weight"] for step, state in kept.items()}
    moves = {a: float((weight[b] - weight[a]).abs().max()) for a, b in ((2, 4), (4, 5), (5, 6))}
    assert moves[2] > 0
    assert moves[4] > 0
    assert moves[5] == 0  # the last rate is zero: the optimiser really uses it


def test_12_no_view_loses_its_object_and_masks_stay_binary():
    task = make(MIXED, augment={"min_area": 0.08})
    run = Run(task)
    for step in range(12):
        for part in run.parts(step):
            assert set(part["masks"].unique().tolist()) <= {0.0, 1.0}
            assert bool((part["masks"].flatten(1).sum(dim=1) > 0).all())


def test_13_extreme_logits_stay_finite():
    sharp = {"losses": {"softmax_temperature": 0.002}, "target": {"temperature": 0.002}}
    run = trained(1, **sharp)
    for part in run.parts(1):
        losses = run.module(part)
        losses["total"].backward()
        assert all(bool(loss.isfinite()) for loss in losses.values())
    for name, parameter in run.module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_14_the_number_of_classes_comes_from_the_data():
    for num_classes in (3, 9):
        run = trained(1, num_classes=num_classes)
        part = run.parts(1)[0]
        assert run.module.model(part["images"]).cosines_NK.shape[1] == num_classes
        assert part["targets"].shape[1] == len(part["mass"]) == num_classes
        assert run.step(1)["cluster_entropy"] <= math.log(num_classes) + 1e-6
        shapes = {tuple(value.shape) for value in run.task.snapshot().values()}
        assert (num_classes, run.module.model.encoder.num_features) in shapes


def complaints(source: str) -> list[str]:
    """Imports that no longer exist, prints, and state at module level."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(n.name.startswith("torch._six") for n in names):
                found.append("torch._six")
            case ast.ImportFrom(module=str(module)) if module.startswith("torch._six"):
                found.append("torch._six")
            case ast.ImportFrom(module="collections", names=names):
                found += [n.name for n in names if n.name in ("Mapping", "Sequence", "Iterable")]
            case ast.Attribute(value=ast.Name(id="collections"), attr="Mapping" | "Sequence"):
                found.append("collections.Mapping")
            case ast.Call(func=ast.Name(id="print")):
                found.append("print")
            case ast.Global():
                found.append("global")
    return found


def test_15_no_removed_imports_no_prints_no_globals():
    package = Path(gcdis_ray.__file__).parent
    for folder in ("losses", "clustering", "models", "methods", "training", "data"):
        files = list((package / folder).rglob("*.py"))
        assert files
        for file in files:
            assert complaints(file.read_text()) == [], file
    published = "import torch._six\nfrom collections import Mapping\nprint(1)\n"
    assert len(complaints(published + "def f():\n    global pointer\n    pointer = 0\n")) == 4


# ------------------------------------------------------------------ the defects themselves

Patch = pytest.MonkeyPatch


def no_gradient(patch: Patch) -> None:
    whole = objective.clustering_loss
    patch.setattr(
        objective,
        "clustering_loss",
        lambda target, cosines, *rest: whole(target, cosines.detach(), *rest),
    )


def other_views(patch: Patch, generator: Callable[..., Any] | None = None, **changes: Any) -> None:
    """Views of another config, or of another generator."""
    whole = crop_views.random_view

    def view(images: Any, masks: Any, side: int, config: Any, own: Any, *where: Any) -> Any:
        changed = config.model_copy(update=changes)
        return whole(images, masks, side, changed, generator() if generator else own, *where)

    patch.setattr(crop_views, "random_view", view)


def one_view(patch: Patch) -> None:
    other_views(patch, lambda: torch.Generator().manual_seed(0))


def no_colour(patch: Patch) -> None:
    other_views(patch, jitter=0.0)


def stranger(patch: Patch) -> None:
    start = MomentumEncoder.__init__

    def init(self: MomentumEncoder, module: torch.nn.Module) -> None:
        start(self, module)
        for parameter in self.module.parameters():
            parameter.add_(torch.randn_like(parameter))

    patch.setattr(MomentumEncoder, "__init__", init)


def once_an_epoch(patch: Patch) -> None:
    follow, calls = MomentumEncoder.update, []

    def update(self: MomentumEncoder, student: torch.nn.Module, momentum: float) -> None:
        calls.append(1)
        if len(calls) % 2 == 0:
            follow(self, student, momentum)

    patch.setattr(MomentumEncoder, "update", update)


def no_buffers(patch: Patch) -> None:
    def update(self: MomentumEncoder, student: torch.nn.Module, momentum: float) -> None:
        for ours, theirs in zip(self.module.parameters(), student.parameters(), strict=True):
            ours.lerp_(theirs.detach(), 1 - momentum)

    patch.setattr(MomentumEncoder, "update", update)


def positives_only(patch: Patch) -> None:
    def loss(log_p: Tensor, labels: Tensor, key_labels: Tensor, count: float) -> Tensor:
        positive = (labels[:, None] == key_labels[None]) & (labels >= 0)[:, None]
        alone = torch.log_softmax(log_p.masked_fill(~positive, -1e9), dim=1)
        terms = torch.where(positive & (log_p > -torch.inf), alone, 0.0)
        return -(terms.sum(1) / positive.sum(1).clamp(min=1)).sum() / max(count, 1e-6)

    patch.setattr(objective, "class_contrastive_loss", loss)


def raw_cosines(patch: Patch) -> None:
    patch.setattr(
        objective,
        "classification_loss",
        lambda cosines, labels, heat, count: classification_loss(cosines, labels, 1.0, count),
    )


def memory_of_one(patch: Patch) -> None:
    def update(self: HeadnessTable, instances: Tensor, values: Tensor) -> None:
        self._sum_I[instances] = self.momentum + (1 - self.momentum) * values
        self._visits_I[instances] += 1

    patch.setattr(HeadnessTable, "update", update)


def own_old_keys(patch: Patch) -> None:
    whole = objective.headness
    patch.setattr(
        objective,
        "headness",
        lambda near, foreign, share: whole(near, torch.ones_like(foreign), share),
    )


def everyone_counts(patch: Patch) -> None:
    everyone = property(lambda self: torch.ones_like(self._visits_I, dtype=torch.bool))
    patch.setattr(HeadnessTable, "visited", everyone)


def division_by_zero(patch: Patch) -> None:
    def assign(self: HeadnessTable) -> None:
        h = self.values
        low, high = h[h > 0].round(decimals=4).quantile(torch.tensor([0.1, 0.9]))
        scale = ((h - low) / (high - low)).clamp(0, 1)
        scaled = self.minimum + (self.maximum - self.minimum) * scale
        self.temperatures = torch.where(h > 0, scaled, self.minimum)

    patch.setattr(HeadnessTable, "assign", assign)


def plain_slice(patch: Patch) -> None:
    def enqueue(self: FeatureQueue, keys: Tensor, labels: Tensor, instances: Tensor) -> None:
        stop = self._next + len(keys)
        self._keys_QD[self._next : stop] = keys
        self._labels_Q[self._next : stop] = labels
        self._instances_Q[self._next : stop] = instances
        self._next, self.num_valid = stop % self.capacity, min(self.capacity, stop)

    patch.setattr(FeatureQueue, "enqueue", enqueue)


def empty_slots(patch: Patch) -> None:
    everything = property(lambda queue: queue.capacity, lambda queue, number: None)
    patch.setattr(FeatureQueue, "num_valid", everything, raising=False)


def shared_queue(patch: Patch) -> None:
    start, first = FeatureQueue.__init__, {}

    def init(self: FeatureQueue, *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        self.__dict__ = first.setdefault("queue", self.__dict__)

    patch.setattr(FeatureQueue, "__init__", init)


def mean_of_nothing(patch: Patch) -> None:
    patch.setattr(
        objective,
        "classification_loss",
        lambda cosines, labels, heat, count: F.cross_entropy(
            cosines / heat, labels, ignore_index=-1
        ),
    )


def dead_schedule(patch: Patch) -> None:
    patch.setattr(loop, "learning_rate", lambda config, step: config.lr)


def no_snapshots(patch: Patch) -> None:
    patch.setattr(DiscoveryTask, "is_snapshot", lambda self, step: False)


def any_window(patch: Patch) -> None:
    other_views(patch, min_mask=0.0)


def soft_masks(patch: Patch) -> None:
    whole = crop_views.random_view

    def view(*args: Any) -> tuple[Tensor, Tensor]:
        images, masks = whole(*args)
        return images, F.avg_pool2d(masks, 3, 1, 1)

    patch.setattr(crop_views, "random_view", view)


def log_of_softmax(patch: Patch) -> None:
    def loss(target: Tensor, cosines: Tensor, heat: float, weight: float) -> Tensor:
        q = torch.softmax(cosines / heat, dim=1)
        return (target * (target / q).log()).sum(dim=1).mean()

    patch.setattr(objective, "clustering_loss", loss)


def always_1200(patch: Patch) -> None:
    wide = lambda width, classes: CosineClassifier(width, 1200)  # noqa: E731
    patch.setattr(discovery_model, "CosineClassifier", wide)


DEFECTS: list[tuple[Callable[[], None], Callable[[Patch], None]]] = [
    (test_01_the_clustering_loss_trains_the_encoder_and_the_prototypes, no_gradient),
    (test_02_student_and_momentum_encoder_see_two_views_in_other_colours, one_view),
    (test_02_student_and_momentum_encoder_see_two_views_in_other_colours, no_colour),
    (test_03_the_momentum_encoder_starts_as_the_student_bit_by_bit, stranger),
    (test_04_the_momentum_encoder_follows_every_step_with_its_buffers, once_an_epoch),
    (test_04_the_momentum_encoder_follows_every_step_with_its_buffers, no_buffers),
    (test_05_supervised_contrast_has_negatives_and_the_own_key_is_positive, positives_only),
    (test_06_cross_entropy_is_of_cosines_over_the_temperature, raw_cosines),
    (test_07_headness_is_a_running_mean_of_what_was_measured, memory_of_one),
    (test_08_headness_leaves_out_own_old_keys_the_unseen_and_equal_percentiles, own_old_keys),
    (test_08_headness_leaves_out_own_old_keys_the_unseen_and_equal_percentiles, everyone_counts),
    (test_08_headness_leaves_out_own_old_keys_the_unseen_and_equal_percentiles, division_by_zero),
    (
        test_09_the_queue_wraps_at_any_batch_size_shows_filled_slots_only_and_is_its_tasks_own,
        plain_slice,
    ),
    (
        test_09_the_queue_wraps_at_any_batch_size_shows_filled_slots_only_and_is_its_tasks_own,
        empty_slots,
    ),
    (
        test_09_the_queue_wraps_at_any_batch_size_shows_filled_slots_only_and_is_its_tasks_own,
        shared_queue,
    ),
    (test_10_a_batch_without_labels_gives_finite_losses_and_gradients, mean_of_nothing),
    (test_11_the_learning_rate_follows_its_schedule_and_snapshots_are_saved, dead_schedule),
    (test_11_the_learning_rate_follows_its_schedule_and_snapshots_are_saved, no_snapshots),
    (test_12_no_view_loses_its_object_and_masks_stay_binary, any_window),
    (test_12_no_view_loses_its_object_and_masks_stay_binary, soft_masks),
    (test_13_extreme_logits_stay_finite, log_of_softmax),
    (test_14_the_number_of_classes_comes_from_the_data, always_1200),
]


@pytest.mark.parametrize(
    ("test", "defect"), DEFECTS, ids=[f"{t.__name__[5:7]}-{d.__name__}" for t, d in DEFECTS]
)
def test_each_test_fails_on_its_defect(
    test: Callable[[], None], defect: Callable[[Patch], None], monkeypatch: Patch
):
    defect(monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, KeyError)):
        test()
