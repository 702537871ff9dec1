"""Work that the parts of a step share: whole, in order, whatever the number of parts."""

from __future__ import annotations

import pytest
import torch
from toy_discovery import AllParts

from gcdis_ray.methods.step_parts import StepParts


@pytest.mark.parametrize("num_parts", [1, 2, 3, 8])
@pytest.mark.parametrize("num_rows", [1, 5, 6])
def test_every_row_is_looked_at_in_its_place(num_parts: int, num_rows: int):
    parts = StepParts(range(num_parts), num_parts, AllParts())
    rows, sizes = torch.randperm(50)[:num_rows], []

    def look(some: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(some))
        return [some * 2, some[:, None].expand(-1, 3)]

    double, wide = parts.look(rows, look)
    assert torch.equal(double, rows * 2)
    assert torch.equal(wide, rows[:, None].expand(-1, 3))
    assert len(set(sizes)) == 1
    assert len(sizes) == num_parts


def test_all_have_what_the_first_part_has():
    class Others:
        """The other rank's value is a little off."""

        def rows(self, values):
            return torch.cat([*values, *(value + 1e-7 for value in values)])

    value = torch.rand(4, 2)
    assert torch.equal(StepParts([0, 1], 4, Others()).of_first(value), value)


def test_a_mean_is_over_all_parts():
    parts = StepParts([0, 1, 2], 3, AllParts())
    assert parts.mean([torch.tensor(n) for n in (1, 2, 6)]).item() == 3
