"""All losses of a real step against the paper's formulas in plain loops, sets made explicit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_discovery import MIXED, MODEL, Run, make

from gcdis_ray.methods.discovery_model import Discovered
from gcdis_ray.methods.gcdis.config import ModelConfig


def softmax(logits: list[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def contrast(found: Discovered, part: dict[str, Any]) -> tuple[float, float]:
    """L_u^rep, mean over the part; L_s^rep, over the labeled crops of a mean part."""
    keys, key_labels = part["keys"].tolist(), part["key_labels"].tolist()
    key_instances = part["key_instances"].tolist()
    own_terms, class_terms = [], []
    for i, z in enumerate(found.projections_ND.tolist()):
        own, label, tau = (part[name][i].item() for name in ("own", "labels", "temperatures"))
        score = {
            j: sum(a * b for a, b in zip(z, keys[j], strict=True)) / tau
            for j in range(int(part["num_contrasted"]))
            if key_instances[j] != part["instances"][i] or j == own
        }
        log_sum = math.log(sum(math.exp(s) for s in score.values()))
        own_terms.append(log_sum - score[own])
        if label >= 0:
            positives = [j for j in score if key_labels[j] == label]
            assert own in positives
            class_terms.append(sum(log_sum - score[j] for j in positives) / len(positives))
    num_labeled = float(part["num_labeled"])
    return sum(own_terms) / len(own_terms), sum(class_terms) / num_labeled if class_terms else 0.0


def clustering(
    found: Discovered, part: dict[str, Any], teacher_cosines: Tensor, unlabeled: bool
) -> float:
    """L_u^cls with its target from the momentum encoder's own logits."""
    mass, terms = part["mass"].tolist(), []
    rows = zip(found.cosines_NK.tolist(), teacher_cosines.tolist(), part["labels"], strict=True)
    for cosines, theirs, label in rows:
        if unlabeled and label >= 0:
            continue
        q, p = softmax([c / 0.1 for c in cosines]), softmax([c / 0.1 for c in theirs])
        raw = [value**2 / f for value, f in zip(p, mass, strict=True)]
        target = [value / sum(raw) for value in raw]
        terms.append(sum(t * math.log(t / o) for t, o in zip(target, q, strict=True) if t > 0))
    num_unlabeled = len(part["labels"]) - float(part["num_labeled"])  # in a mean part of the step
    return sum(terms) / (num_unlabeled if unlabeled else len(terms))


def supervised(found: Discovered, part: dict[str, Any]) -> float:
    rows = zip(found.cosines_NK.tolist(), part["labels"].tolist(), strict=True)
    terms = [-math.log(softmax([c / 0.1 for c in row])[y]) for row, y in rows if y >= 0]
    return sum(terms) / float(part["num_labeled"]) if terms else 0.0


def attention(found: Discovered, masks: Tensor, weights: tuple[float, ...]) -> float:
    """L_att: nearest-resized masks, contours by the 3x3 Laplacian, the outer ring at weight 1."""
    stages, side = [], masks.shape[-1]
    for saliency, weight in zip(found.saliencies, weights, strict=False):
        size, total = saliency.shape[-1], 0.0
        pick = [int((i + 0.5) * side / size) for i in range(size)]
        for s, whole in zip(saliency[:, 0].tolist(), masks[:, 0].tolist(), strict=True):
            m = [[whole[y][x] for x in pick] for y in pick]
            for y in range(size):
                for x in range(size):
                    inside = 0 < y < size - 1 and 0 < x < size - 1
                    around = inside and any(
                        m[y + dy][x + dx] != m[y][x] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                    )
                    laplacian = inside and sum(
                        m[y + dy][x + dx] - m[y][x] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
                    )
                    assert bool(laplacian) == around  # of a binary mask
                    total += (weight if around else 1.0) * (s[y][x] - m[y][x]) ** 2
        stages.append(total / saliency.numel())
    return sum(stages) / len(stages)


def anchor(found: Discovered, part: dict[str, Any]) -> float:
    """Cross-entropy of unlabeled crops to where they were placed."""
    terms = [
        -math.log(softmax([c / 0.1 for c in row])[PLACED[crop]])
        for row, crop, label in zip(
            found.cosines_NK.tolist(), part["instances"].tolist(), part["labels"], strict=True
        )
        if label < 0
    ]
    return sum(terms) / (len(part["labels"]) - float(part["num_labeled"]))


def balance(found: Discovered, mass: list[float]) -> float:
    """KL of the mean prediction, linearised at the mass."""
    rows = [softmax([c / 0.1 for c in row]) for row in found.cosines_NK.tolist()]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return sum(q * math.log(m / sum(mass)) for q, m in zip(means, mass, strict=True))


PLACED = [3 if label < 0 and crop % 3 else max(label, 0) for crop, label in enumerate(MIXED)]
CASES: dict[str, dict[str, Any]] = {
    "paper": {},
    "other lambda": dict(losses={"labeled": 0.8, "attention": 0.5, "contrastive": 2.0}),
    "batch negatives": dict(negatives="batch"),
    "as they come": dict(labeled_share=None),
    "clustering of unlabeled": dict(losses={"clustering_on": "unlabeled"}, labeled_share=None),
    "few labels": dict(labels=[1, *[-1] * 16]),
    "placed": dict(prototypes={"start": "placed"}, placed=PLACED),
    "placed, weighed": dict(
        prototypes={"start": "placed"}, placed=PLACED, losses={"anchor": 0.3, "balance": 2.5}
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_loss_equals_its_formula_and_the_total_their_sum(case: str):
    changes = {"losses": {}, "prototypes": {"start": "random"}, **CASES[case]}
    labels = changes.pop("labels", MIXED)
    changes["losses"] = {"clustering_from": 0.0, **changes["losses"]}
    run = Run(make(labels, **changes))
    for step in range(3):  # the third step ends an epoch and a half: temperatures differ by crop
        run.step(step)
    config = run.task.discovery
    weights, is_placed = config.losses, "placed" in changes
    for part in run.parts(3):
        with torch.no_grad():
            found = run.module.model(part["images"])
            teacher = run.task.teacher.module(part["second"]).cosines_NK
            losses = {name: float(loss) for name, loss in run.module(part).items()}
        instance, class_ = contrast(found, part)
        expected = {
            "instance": instance,
            "class": class_,
            "clustering": clustering(found, part, teacher, weights.clustering_on == "unlabeled"),
            "supervised": supervised(found, part),
            "attention": attention(found, part["masks"], (0.25, 0.5)),
        }
        free = weights.contrastive * expected["instance"] + expected["clustering"]
        if is_placed:
            expected["anchor"] = anchor(found, part)
            expected["balance"] = balance(found, part["mass"].tolist())
            free += config.anchor * expected["anchor"] + config.balance * expected["balance"]
        taught = weights.contrastive * expected["class"] + expected["supervised"]
        expected["total"] = (
            weights.attention * expected["attention"]
            + (1 - weights.labeled) * free
            + weights.labeled * taught
        )
        for name, value in expected.items():
            assert losses[name] == pytest.approx(value, rel=2e-5, abs=1e-6), name
    assert run.task.export()["instance_state"]["temperature"].unique().numel() > 2


def test_lone_label_counts_the_same_in_one_part_or_two():
    """A labeled crop shared by more parts than there are labeled crops keeps its weight."""
    labels = [1, *[-1] * 23]
    totals = {}
    for parts in (1, 2, 4):
        task = make(labels, training={"micro_batches": parts, "batch_size": 24}, labeled_share=None)
        run = Run(task)
        run.module.eval()  # without batch statistics, a crop's loss is its own
        batches = [run.task.batch(0, part) for part in range(parts)]
        whole = {
            name: torch.cat([batch[name] for batch in batches])
            for name in ("images", "second", "masks", "labels", "instances")
        }
        order = whole["instances"].argsort()
        if "order" not in totals:
            totals["order"] = {name: rows[order] for name, rows in whole.items()}
        size = 24 // parts
        again = [
            {
                **batches[part],
                **{
                    name: rows[part * size : (part + 1) * size]
                    for name, rows in totals["order"].items()
                },
            }
            for part in range(parts)
        ]
        ready = run.task.prepare(again, Exchange())
        losses = [run.module(part) for part in ready]
        for name in ("supervised", "class", "instance", "attention"):
            mean = float(torch.stack([loss[name].detach() for loss in losses]).mean())
            assert mean == pytest.approx(totals.setdefault(name, mean), rel=1e-4), (name, parts)
    assert totals["supervised"] > 0


class Exchange:
    def rows(self, parts: Any) -> Tensor:
        return torch.cat([part.detach() for part in parts])


@pytest.mark.parametrize("capacity", [24, 48, 120])
def test_cluster_mass_forgets_at_the_rate_of_the_queue(capacity: int):
    """f_c: the column sums of a queue of probabilities, kept as a running sum: the same total, and
    the same columns where probabilities are steady."""
    run = Run(make(MIXED, queue_size=capacity, prototypes={"start": "random"}, momentum=0.999))
    sums: list[Tensor] = []
    for step in range(6):
        parts = run.parts(step)
        seen = [run.task.teacher.module(part["second"]).cosines_NK for part in parts]
        sums.append(torch.softmax(torch.cat(seen) / 0.1, dim=1).sum(dim=0))
        keep = 1 - 12 / capacity
        expected = torch.stack([s * keep ** (step - k) for k, s in enumerate(sums)]).sum(dim=0)
        torch.testing.assert_close(parts[0]["mass"], expected, rtol=1e-4, atol=1e-4)
        run.step(step)


MODES = {
    "instance": {},
    "fixed": {"minimum": 0.2},
    "cosine": {"minimum": 0.1, "maximum": 0.9, "cosine_periods": 2.0},
}


@pytest.mark.parametrize("mode", MODES)
def test_temperature_modes_are_a_config_apart(mode: str):
    run = Run(make(MIXED, 8, temperature={"mode": mode, **MODES[mode]}))
    for step in range(8):
        taus = torch.cat([part["temperatures"] for part in run.parts(step)])
        if mode == "fixed":
            assert taus.tolist() == pytest.approx([0.2] * 12)
        elif mode == "cosine":
            wave = 0.1 + 0.8 * (1 + math.cos(2 * math.pi * 2 * step / 8)) / 2
            assert taus.tolist() == pytest.approx([wave] * 12, abs=1e-6)
        elif step < 2:  # the first epoch
            assert taus.tolist() == pytest.approx([0.07] * 12)
        else:
            assert float(taus.min()) >= 0.07 - 1e-6
            assert float(taus.max()) <= 1 + 1e-6
            assert taus.unique().numel() > 2
        run.step(step)


@pytest.mark.parametrize("attention_on", [True, False])
@pytest.mark.parametrize("stem_pool", [True, False])
def test_attention_and_stem_pool_are_switches(attention_on: bool, stem_pool: bool):
    encoder = MODEL.encoder.model_dump() | {"stem_pool": stem_pool}
    model = ModelConfig.model_validate(
        MODEL.model_dump() | {"encoder": encoder, "attention": {"enabled": attention_on}}
    )
    run = Run(make(MIXED, model=model))
    values = run.step(0)
    assert ("attention" in values) == attention_on
    saliencies = run.module.model(run.parts(1)[0]["images"]).saliencies
    sides = [4, 2] if stem_pool else [8, 4]
    assert [s.shape[-1] for s in saliencies] == (sides if attention_on else [])
