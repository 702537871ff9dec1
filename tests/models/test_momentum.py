from __future__ import annotations

import pytest
import torch
from torch import nn

from gcdis_ray.models.momentum import MomentumEncoder, rising_momentum


def test_exact_copy_then_moves_by_the_share_of_the_students_move():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()
    momentum = MomentumEncoder(student)
    start = {name: value.clone() for name, value in student.state_dict().items()}
    for name, value in momentum.module.state_dict().items():
        assert torch.equal(value, start[name])
    with torch.no_grad():
        student(torch.randn(8, 4, dtype=torch.float64))  # moves the running statistics
        for parameter in student.parameters():
            parameter += torch.randn_like(parameter)
    momentum.update(student, 0.999)
    for name, value in momentum.module.state_dict().items():
        now = student.state_dict()[name]
        if value.is_floating_point():
            assert not torch.equal(now, start[name])
            torch.testing.assert_close(value - start[name], 0.001 * (now - start[name]))
        else:
            assert torch.equal(value, now)


def test_all_tensors_at_once_move_as_each_would_by_itself_bit_by_bit():
    torch.manual_seed(1)
    student = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 5, 3),
        nn.Linear(7, 6),
        nn.BatchNorm1d(6),
    )
    student.to(memory_format=torch.channels_last)
    student[3].double()
    momentum = MomentumEncoder(student)
    with torch.no_grad():
        for value in student.state_dict().values():
            value += torch.randn(value.shape).to(value.dtype)
    one_by_one = {k: v.clone() for k, v in momentum.module.state_dict().items()}
    for share in (0.9, 0.999, 0.31):
        momentum.update(student, share)
        for name, value in one_by_one.items():
            now = student.state_dict()[name]
            if value.is_floating_point():
                value.lerp_(now, 1.0 - share)
            else:
                value.copy_(now)
        for name, value in momentum.module.state_dict().items():
            assert torch.equal(value, one_by_one[name]), name


def test_it_lies_in_memory_as_the_student_does_after_a_strategy_laid_it_out_anew():
    student = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 1))
    student.to(memory_format=torch.channels_last)
    momentum = MomentumEncoder(student)
    before = {name: value.clone() for name, value in momentum.module.state_dict().items()}
    for parameter in student.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format) + 1
    momentum.update(student, 0.9)
    pairs = zip(momentum.module.parameters(), student.parameters(), strict=True)
    assert all(ours.stride() == theirs.stride() for ours, theirs in pairs)
    for name, ours in momentum.module.named_parameters():
        torch.testing.assert_close(ours, before[name] + 0.1)
        assert not ours.requires_grad


def test_never_trained():
    momentum = MomentumEncoder(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    assert not any(p.requires_grad for p in momentum.module.parameters())
    assert not any(m.training for m in momentum.module.modules())


def test_what_the_student_never_trains_stays_bit_by_bit():
    student = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    student[0].requires_grad_(False)
    momentum = MomentumEncoder(student)
    fixed = student[0].weight.clone()
    with torch.no_grad():
        student[1].weight += 1
    momentum.update(student, 0.3)
    assert torch.equal(momentum.module[0].weight, fixed)
    torch.testing.assert_close(momentum.module[1].weight, student[1].weight - 0.3)


def test_rising_momentum():
    values = [rising_momentum(k / 10, 0.7, 0.999) for k in range(11)]
    assert values[0] == pytest.approx(0.7)
    assert values[-1] == pytest.approx(0.999)
    assert values[5] == pytest.approx((0.7 + 0.999) / 2)
    assert values == sorted(values)
