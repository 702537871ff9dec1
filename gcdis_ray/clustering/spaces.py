"""Where vectors are compared: minus a mean, along some axes, each row scaled to length 1.

Frozen features of photographs share a large common part, and a few directions hold most of what is
left. Four spaces say how much of that counts: all of it (raw), what differs from the mean
(centred), the directions of most variance with each one's spread to the power of one half
(half-whitened), or all of them alike (whitened).

With X = U S Vᵀ, the centred vectors, points are the rows of U S, U S^½ or U. Everything is found in
float64, in one reading of the vectors and memory for D x D numbers, with signs that do not depend
on the machine.

Shape letters: N vectors, D dimensions, C axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_BLOCK = 1 << 16  # vectors whose float64 copy exists at a time
_FLAT = 1e-10  # share of the largest variance at which there is none: rounding of float32 vectors


@dataclass(frozen=True)
class Space:
    """Points are ``normalize((vectors - mean) @ axes)``.

    Args:
        mean_D: zeros if nothing is subtracted.
        axes_DC: of the same type, a direction per column, by falling variance; None: all
            dimensions as they are.
    """

    mean_D: Tensor
    axes_DC: Tensor | None

    @classmethod
    def of(cls, stored: Mapping[str, Tensor]) -> Space:
        """As :meth:`tensors` says."""
        return cls(stored["mean_D"], stored.get("axes_DC"))

    def tensors(self) -> dict[str, Tensor]:
        axes = {} if self.axes_DC is None else {"axes_DC": self.axes_DC}
        return {"mean_D": self.mean_D, **axes}

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Space:
        return Space.of({name: t.to(device, dtype) for name, t in self.tensors().items()})

    @property
    def width(self) -> int:
        """C, or D without axes."""
        return len(self.mean_D) if self.axes_DC is None else self.axes_DC.shape[1]

    def place(self, vectors_ND: Tensor) -> Tensor:
        """Unit rows (N, C) of vectors (N, D), zeros for one without direction; computed in the
        type and on the device of the space, given in the type of the vectors."""
        points_NC = vectors_ND.new_empty(len(vectors_ND), self.width, device=self.mean_D.device)
        for start in range(0, len(vectors_ND), _BLOCK):
            moved_BD = vectors_ND[start : start + _BLOCK].to(self.mean_D) - self.mean_D
            moved_BC = moved_BD if self.axes_DC is None else moved_BD @ self.axes_DC
            points_NC[start : start + _BLOCK] = F.normalize(moved_BC, dim=1)
        return points_NC


def raw(vectors_ND: Tensor) -> Space:
    """Vectors as they are, but of length 1."""
    return Space(vectors_ND.new_zeros(vectors_ND.shape[1], dtype=torch.float64), None)


def centred(vectors_ND: Tensor) -> Space:
    """Minus the mean."""
    return Space(vectors_ND.mean(dim=0, dtype=torch.float64), None)


def principal(vectors_ND: Tensor, dims: int) -> Space:
    """The ``dims`` directions of most variance: rows of U S. As all below, of fewer directions if
    fewer have any variance, but of one at least."""
    return scaled(vectors_ND, dims, 0.0)


def half_whitened(vectors_ND: Tensor, dims: int) -> Space:
    """The same with half of each direction's spread, on a logarithmic scale: rows of U S^½."""
    return scaled(vectors_ND, dims, 0.5)


def whitened(vectors_ND: Tensor, dims: int) -> Space:
    """The same with every direction alike: rows of U."""
    return scaled(vectors_ND, dims, 1.0)


def scaled(vectors_ND: Tensor, dims: int, power: float) -> Space:
    """The ``dims`` directions of most variance, divided by their spread to the ``power``."""
    return scalings(vectors_ND, dims, [power])[0]


def scalings(vectors_ND: Tensor, dims: int, powers: Sequence[float]) -> list[Space]:
    """As :func:`scaled` for each of several powers, from one reading."""
    mean_D, axes_DC, variance_C = _principal_axes(vectors_ND, dims)
    share_C = variance_C / variance_C[0] if bool(variance_C[0] > 0) else variance_C + 1
    return [Space(mean_D, (axes_DC * share_C ** (-power / 2)).contiguous()) for power in powers]


def _principal_axes(vectors_ND: Tensor, dims: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), orthogonal unit axes (D, C), and the variance along each of them (C,), falling."""
    mean_D = vectors_ND.mean(dim=0, dtype=torch.float64)
    moment_DD = torch.zeros(len(mean_D), len(mean_D), dtype=torch.float64, device=mean_D.device)
    for block in vectors_ND.split(_BLOCK):
        centred_BD = block.double() - mean_D
        moment_DD += centred_BD.T @ centred_BD
    variance_D, axes_DD = torch.linalg.eigh(moment_DD)
    variance_C, axes_DC = variance_D.flip(0)[:dims], axes_DD.flip(1)[:, :dims]
    some = variance_C > _FLAT * variance_C[0]
    some[0] = True
    variance_C, axes_DC = variance_C[some], axes_DC[:, some]
    largest_C = axes_DC.gather(0, axes_DC.abs().argmax(dim=0, keepdim=True))
    return mean_D, axes_DC * torch.where(largest_C < 0, -1.0, 1.0), variance_C  # no sign of its own
