"""SimGCD's losses against its formulas in plain loops, views and sets made explicit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from row_network import row_model
from torch import Tensor

from gcdis_ray.methods.simgcd.config import LossesConfig
from gcdis_ray.methods.simgcd.objective import SimGCDObjective

F, K = 6, 4
LABELS = [0, -1, 1, 0, -1]


def batch(labels: list[int], **changes: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(len(labels))
    n = len(labels)
    made = dict(
        images=torch.randn(n, F, generator=generator),
        second=torch.randn(n, F, generator=generator),
        labels=torch.tensor(labels),
        instances=torch.arange(n) + 7,
        anchors=torch.tensor([-1 if label >= 0 else 3 for label in labels]),
        num_labeled=torch.tensor(float(sum(label >= 0 for label in labels))),
        num_anchors=torch.tensor(float(sum(label < 0 for label in labels))),
        teacher_temperature=0.05,
        mass=torch.zeros(K),
        shares=torch.full((K,), 1 / K),
    )
    return made | changes


def softmax(values: list[float], heat: float) -> list[float]:
    powers = [math.exp((value - max(values)) / heat) for value in values]
    return [power / sum(powers) for power in powers]


def info_nce(z: list[list[float]], own: int, i: int, keys: list[int], heat: float) -> float:
    dots = {j: sum(a * b for a, b in zip(z[i], z[j], strict=True)) / heat for j in keys}
    return math.log(sum(math.exp(dot) for dot in dots.values())) - dots[own]


def expected(model, part: dict[str, Any], config: LossesConfig) -> dict[str, float]:
    """By crop and view; view v of crop i is row v n + i."""
    with torch.no_grad():
        found = model(torch.cat([part["images"], part["second"]]))
    cosines, z = found.cosines_NK.tolist(), found.projections_ND.tolist()
    labels = part["labels"].tolist()
    n, heat = len(labels), config.softmax_temperature
    rows = [(v, i) for v in (0, 1) for i in range(n)]
    log_q = [[math.log(q) for q in softmax(row, heat)] for row in cosines]
    taught = []
    for v, i in rows:
        other = softmax(cosines[(1 - v) * n + i], part["teacher_temperature"])
        taught.append(-sum(t * q for t, q in zip(other, log_q[v * n + i], strict=True)))
    mean = [sum(math.exp(row[k]) for row in log_q) / (2 * n) for k in range(K)]
    told = [(v, i) for v, i in rows if labels[i] >= 0]
    supervised = [-log_q[v * n + i][labels[i]] for v, i in told]
    instance, class_ = [], []
    for v, i in rows:
        me, own = v * n + i, (1 - v) * n + i
        keys = [w * n + j for w, j in rows if (w, j) != (v, i)]
        instance.append(info_nce(z, own, me, keys, config.instance_temperature))
        if labels[i] < 0:
            continue
        keys = [w * n + j for w, j in told if (w, j) != (v, i)]
        same = [w * n + j for w, j in told if labels[j] == labels[i] and (w, j) != (v, i)]
        terms = [info_nce(z, j, me, keys, config.class_temperature) for j in same]
        class_.append(sum(terms) / len(terms))
    losses = {
        "distillation": sum(taught) / len(taught),
        "balance": sum(m * math.log(m) for m in mean),  # minus the entropy of the mean
        "supervised": sum(supervised) / len(told) if told else 0.0,
        "instance": sum(instance) / len(instance),
        "class": sum(class_) / len(told) if told else 0.0,
    }
    anchored = [-log_q[v * n + i][3] for v, i in rows if labels[i] < 0]
    free = losses["distillation"] + config.balance * losses["balance"] + losses["instance"]
    if config.anchor:
        losses["anchor"] = sum(anchored) / len(anchored) if anchored else 0.0
        free += config.anchor * losses["anchor"]
    losses["total"] = (1 - config.labeled) * free
    losses["total"] += config.labeled * (losses["supervised"] + losses["class"])
    return losses


@pytest.mark.parametrize("labels", [LABELS, [-1] * 4, [0, 1, 0], [1, -1, -1]])
@pytest.mark.parametrize("changes", [{}, {"labeled": 0.8, "balance": 4.0, "anchor": 0.7}])
def test_every_loss_equals_its_formula(labels: list[int], changes: dict[str, float]):
    config = LossesConfig.model_validate(changes)
    model, part = row_model(F, K), batch(labels)
    with torch.no_grad():
        found = SimGCDObjective(model, config, parts=1)(part)
    wanted = expected(model, part, config)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name


def gradients(loss: Tensor, model) -> Tensor:
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in model.classifier.parameters()])


@pytest.mark.parametrize("uniform", [True, False])
def test_the_balance_draws_as_the_divergence_from_the_wanted_sizes_does(uniform: bool):
    """KL(mean q || shares), of which maximal entropy is the case of equal shares."""
    shares = torch.full((K,), 1 / K) if uniform else torch.tensor([0.1, 0.2, 0.3, 0.4])
    model, part = row_model(F, K), batch(LABELS, shares=shares)
    objective = SimGCDObjective(model, LossesConfig.model_validate({}), parts=1)
    ours = gradients(objective(part)["balance"], model)
    cosines = model(torch.cat([part["images"], part["second"]])).cosines_NK
    mean = torch.softmax(cosines / 0.1, dim=1).mean(dim=0)
    theirs = gradients((mean * (mean / shares).log()).sum(), model)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_no_gradient_passes_through_the_view_that_teaches():
    model, part = row_model(F, K), batch(LABELS)
    part["images"].requires_grad_()
    objective = SimGCDObjective(model, LossesConfig.model_validate({}), parts=1)
    part["second"] = part["images"].detach() * 100  # says the same, more surely
    losses = objective(part)
    losses["distillation"].backward()
    q = torch.softmax(model(part["images"]).cosines_NK / 0.1, dim=1)
    target = torch.softmax(model(part["images"]).cosines_NK.detach() / 0.05, dim=1)
    (grad,) = torch.autograd.grad(-(target * q.log()).sum(dim=1).mean() / 2, part["images"])
    torch.testing.assert_close(part["images"].grad, grad)


def test_what_was_seen_waits_for_the_task():
    model, part = row_model(F, K), batch(LABELS)
    objective = SimGCDObjective(model, LossesConfig.model_validate({}), parts=2)
    objective(part)
    (mass,) = objective.seen_mass
    assert mass.shape == (1, K)
    assert float(mass.sum()) == pytest.approx(len(LABELS), rel=1e-5)
    assert not mass.requires_grad
