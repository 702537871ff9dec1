"""What processors say of themselves."""

from __future__ import annotations

import pytest

from gcdis_ray.training.processor import bf16_units_in, has_bf16_units


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\nbugs : x\n\nprocessor : 1", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("flags\t\t: fpu sse avx avx2 f16c avx512f avx512_vnni", False),
        ("processor\t: 0\nFeatures\t: fp asimd sve bf16 i8mm", True),
        ("processor\t: 0\nFeatures\t: fp asimd fphp", False),
        ("processor : 0\nisa : rv64imafdc", None),
        ("", None),
    ],
)
def test_bf16(cpuinfo: str, has: bool | None):
    assert bf16_units_in(cpuinfo) is has


def test_this_one_says_something_that_is_no_error():
    assert has_bf16_units() in (True, False, None)
