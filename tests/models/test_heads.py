from __future__ import annotations

import torch

from gcdis_ray.models.heads import CosineClassifier, Projector


def test_outputs_are_unit_vectors_and_cosines():
    torch.manual_seed(0)
    features = torch.randn(5, 12) * 30
    projections = Projector(12, 16, 8, norm=True)(features)
    torch.testing.assert_close(projections.norm(dim=1), torch.ones(5))
    head = CosineClassifier(12, 7)
    expected = torch.stack(
        [torch.cosine_similarity(features, row[None], dim=1) for row in head.weight], dim=1
    )
    torch.testing.assert_close(head(features), expected)


def test_placed_prototypes_are_used_and_still_learn():
    torch.manual_seed(0)
    head = CosineClassifier(6, 4)
    weight, new = head.weight.detach().clone(), torch.randn(4, 6)
    head.place(new)
    torch.testing.assert_close(head.prototypes(), torch.nn.functional.normalize(new, dim=1))
    assert torch.equal(head.weight, weight)  # an optimiser's own copy of it stays valid
    head(torch.randn(3, 6)).sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad[1].abs().sum() > 0
