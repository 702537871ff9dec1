"""UNO's unified objective and its heads against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from row_network import Rows
from torch import Tensor

from gcdis_ray.methods.uno.network import NovelHead, UnoNetwork
from gcdis_ray.methods.uno.objective import UnoObjective
from gcdis_ray.models.heads import CosineClassifier, Projector

F, D, KNOWN, NOVEL, N = 6, 4, 2, 3, 4


def network(heads: int = 2, over_heads: int = 1) -> UnoNetwork:
    torch.manual_seed(1)

    def head(outputs: int) -> NovelHead:
        return NovelHead(Projector(F, 8, D, norm=False), CosineClassifier(D, outputs))

    return UnoNetwork(
        Rows(F),  # pyright: ignore[reportArgumentType]
        CosineClassifier(F, KNOWN),
        [head(NOVEL) for _ in range(heads)],
        [head(2 * NOVEL) for _ in range(over_heads)],
        feature_norm=False,
    )


def targets(heads: int, outputs: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(3 * torch.randn(N, 2, heads, outputs, generator=generator), dim=3)


def batch(model: UnoNetwork) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return dict(
        images=torch.randn(N, F, generator=generator),
        second=torch.randn(N, F, generator=generator),
        targets=targets(len(model.heads), KNOWN + NOVEL, 1),
        over_targets=targets(len(model.over_heads), KNOWN + 2 * NOVEL, 2),
    )


def by_loops(cosines: list, wanted: list) -> list[float]:
    """Loss of each head: what view w is said to be is asked of view v.

    Args:
        cosines: [view][crop][head][output]; wanted: [crop][view][head][output].
    """
    losses = []
    for head in range(len(wanted[0][0])):
        terms = []
        for v in (0, 1):
            for i in range(N):
                row, target = cosines[v][i][head], wanted[i][1 - v][head]
                powers = [math.exp(value / 0.1) for value in row]
                log_q = [math.log(power / sum(powers)) for power in powers]
                terms.append(-sum(t * q for t, q in zip(target, log_q, strict=True)))
        losses.append(sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("over_heads", [0, 1, 2])
def test_the_loss_equals_its_formula(over_heads: int):
    model = network(2, over_heads)
    part = batch(model)
    with torch.no_grad():
        found = UnoObjective(model, 0.1)(part)
        seen = [model.headed(part[name]) for name in ("images", "second")]
    main = by_loops([view.cosines_NHK.tolist() for view in seen], part["targets"].tolist())
    expected = {"clustering": sum(main) / 2}
    if over_heads:
        over = by_loops([view.over_NOJ.tolist() for view in seen], part["over_targets"].tolist())
        expected["overclustering"] = sum(over) / over_heads
    expected["total"] = sum(expected.values()) / len(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-5), name


def test_logits_of_known_and_novel_outputs_stand_side_by_side():
    model = network()
    rows = torch.randn(N, F)
    with torch.no_grad():
        found = model.headed(rows)
        assert found.cosines_NHK.shape == (N, 2, KNOWN + NOVEL)
        assert found.over_NOJ.shape == (N, 1, KNOWN + 2 * NOVEL)
        for head in range(2):
            assert torch.equal(found.cosines_NHK[:, head, :KNOWN], model.known(rows))
            projections, cosines = model.heads[head](rows)
            assert torch.equal(found.cosines_NHK[:, head, KNOWN:], cosines)
            torch.testing.assert_close(projections.norm(dim=1), torch.ones(N))


def test_every_head_learns_and_the_best_sorts_crops():
    model = network(3)
    objective, part = UnoObjective(model, 0.1), batch(model)
    part["targets"][:, :, 1] = 0  # a head that has nothing to say has no loss
    objective(part)["total"].backward()
    assert int(model.head_losses.argmin()) == 1
    for head in (0, 2):
        assert all(p.grad is not None and p.grad.any() for p in model.heads[head].parameters())
    with torch.no_grad():
        found = model(part["images"])
        assert torch.equal(found.cosines_NK, model.headed(part["images"]).cosines_NHK[:, 1])
    before = model.head_losses.clone()
    objective.eval()
    objective(part)
    assert torch.equal(model.head_losses, before)


def test_prototypes_are_unit_rows_known_ones_apart_from_novel_ones():
    prototypes = network().prototypes()
    assert prototypes.shape == (KNOWN + NOVEL, F + D)
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(KNOWN + NOVEL))
    assert not (prototypes[:KNOWN] @ prototypes[KNOWN:].T).any()


def test_without_a_novel_class_known_ones_are_still_sorted():
    torch.manual_seed(0)
    head = NovelHead(Projector(F, 8, D, norm=False), CosineClassifier(D, 0))
    model = UnoNetwork(Rows(F), CosineClassifier(F, KNOWN), [head], [], feature_norm=False)  # pyright: ignore[reportArgumentType]
    assert model(torch.randn(N, F)).cosines_NK.shape == (N, KNOWN)
