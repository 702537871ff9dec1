"""k-means for many numbers of clusters at once, from nested starts.

Greedy k-means++ picks centers one after the other, so that the first K of a long sequence are a
start of K clusters: it is drawn once for all numbers that are tried. Neighbouring numbers then
differ by what one more center does, not by luck.

A candidate is drawn in proportion to its squared distance as the winner of a race of exponential
clocks, one per point, and not by a running sum over all points: rounding in the last digits moves
the sum, and with it every later draw, but it hardly ever changes who wins.

Shape letters: N points, D dimensions, K centers, T candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor

from gcdis_ray.clustering.class_count.points import CountSettings
from gcdis_ray.clustering.kmeans import Clustering, kmeans, means

_CANDIDATES = 6  # of which the best is taken; scikit-learn's 2 + ln K, but the same for all K


def nested_kmeans(
    points_ND: Tensor,
    numbers: Sequence[int],
    settings: CountSettings,
    seed: int,
    draw: int,
    labels_N: Tensor | None = None,
    device: str = "cpu",
) -> Iterator[Clustering]:
    """The best clustering of ``settings.n_init`` starts for each of ``numbers``, in their order.

    Args:
        numbers: of clusters, each at most what the points can fill.
        seed, draw: equal ones give equal starts, whatever the numbers.
        labels_N: as of :func:`~gcdis_ray.clustering.kmeans.kmeans`.
        device: where the iterations run. Starts are found on the CPU, where the points and the
            clusterings are.
    """
    free_ND, given_LD = points_ND, None
    if labels_N is not None and bool((labels_N >= 0).any()):
        told = labels_N >= 0
        free_ND = points_ND[~told]
        given_LD, _ = means(points_ND[told], labels_N[told], int(labels_N.max()) + 1)
    starts = [
        start_centers(
            free_ND,
            max(numbers),
            Generator().manual_seed((seed * 1000 + draw) * 1000 + number),
            given_LD,
        )
        for number in range(settings.n_init)
    ]
    there_ND = points_ND.to(device)
    labels_N = labels_N if labels_N is None else labels_N.to(device)
    for num in numbers:
        best = min(
            (
                kmeans(
                    there_ND,
                    num,
                    Generator(),
                    labels_N=labels_N,
                    start_KD=start_KD[:num],
                    max_iterations=settings.max_iterations,
                    backend=settings.backend,
                )
                for start_KD in starts
            ),
            key=lambda found: found.inertia,
        )
        yield replace(best, centers_KD=best.centers_KD.cpu(), cluster_N=best.cluster_N.cpu())


def start_centers(
    points_ND: Tensor, num_centers: int, generator: Generator, given_LD: Tensor | None = None
) -> Tensor:
    """A sequence of centers (K, D), any beginning of which is a start of k-means.

    Args:
        points_ND: at least one for each center that is not given.
        given_LD: the first centers, at most K; none: all points are alike to the first.
    """
    centers_KD = points_ND.new_empty(num_centers, points_ND.shape[1])
    square_N = points_ND.double().square().sum(dim=1)
    closest_N = torch.full_like(square_N, torch.inf)
    given_LD = points_ND[:0] if given_LD is None else given_LD
    num_given = len(given_LD)
    centers_KD[:num_given] = given_LD
    for k in range(num_given):
        distance_TN = _squared(points_ND, square_N, given_LD[k : k + 1])
        closest_N = torch.minimum(closest_N, distance_TN[0])
    for k in range(num_given, num_centers):
        clock_N = -torch.log(torch.rand(len(points_ND), generator=generator, dtype=torch.float64))
        time_N = clock_N / closest_N if k else clock_N
        tried_T = time_N.topk(min(_CANDIDATES, len(points_ND)), largest=False).indices
        distance_TN = _squared(points_ND, square_N, points_ND[tried_T])
        distance_TN = torch.minimum(distance_TN, closest_N)
        best = int(distance_TN.sum(dim=1).argmin())
        closest_N = distance_TN[best]
        centers_KD[k] = points_ND[tried_T[best]]
    return centers_KD


def _squared(points_ND: Tensor, square_N: Tensor, center_TD: Tensor) -> Tensor:
    """Squared distances (T, N), float64."""
    product_TN = (center_TD @ points_ND.T).double()
    square_T = center_TD.double().square().sum(dim=1)
    return (square_N + square_T[:, None] - 2 * product_TN).clamp_(min=0)
