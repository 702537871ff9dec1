"""Discovered classes are judged by known ones, without any truth."""

from __future__ import annotations

import numpy as np
import pytest
from many_classes import many_classes

from gcdis_ray.report import class_points
from gcdis_ray.report.assigned import class_of_every_crop, read_crops_assigned
from gcdis_ray.report.class_points import ClassPoints, read_class_points
from gcdis_ray.report.judging import Judged, Verdict, best_overlaps, judge, verdicts

KNOWN = np.array([0, 1, 2, 3])


def _points(per_class: int = 20) -> ClassPoints:
    """Four known classes and a clean one along axes of their own; one of two lumps; one astride."""
    rng = np.random.default_rng(0)
    axes = np.eye(9)
    lumps = {c: [axes[c]] for c in range(5)}
    lumps |= {5: [axes[5], axes[6]], 6: [axes[0] + axes[7], axes[1] + axes[7], axes[2]]}
    rows, place = [], []
    for c, centres in lumps.items():
        for n in range(per_class):
            rows.append(centres[n % len(centres)] + rng.normal(0, 0.1, 9))
            place.append(c)
    sample = np.stack(rows)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    means = np.stack([sample[np.array(place) == c].mean(axis=0) for c in lumps])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return ClassPoints(np.arange(7), means, sample, np.array(place), 32, sample[:0], np.arange(0))


def test_verdicts_say_what_the_classes_are():
    judged = judge(_points(), KNOWN, {}, {})
    assert verdicts(judged, KNOWN.tolist(), [4, 5, 6, 99]) == {
        4: Verdict.SAFE,
        5: Verdict.MIXED,
        6: Verdict.MIXED,
    }
    assert judged[4].kept == 1
    assert judged[6].kept < 1
    assert {index for index, _ in judged[6].nearest_known} == {0, 1, 2, 3}
    cosines = [cosine for _, cosine in judged[6].nearest_known]
    assert cosines == sorted(cosines, reverse=True)
    assert 0 not in dict(judged[0].nearest_known)


def _judged(silhouette: float = 0.5, width: float | None = 0.2, **more: float) -> Judged:
    return Judged(silhouette, more.pop("kept", 1.0), 0.5, width, 0, [], 9, **more)


def test_each_rule_has_its_words():
    known = {index: _judged() for index in range(4)}
    found = {
        10: _judged(),
        11: _judged(width=0.6),
        12: _judged(0.1),
        13: _judged(0.1, 0.6),
        14: _judged(kept=0.4),
        15: _judged(placed=0.4),
        16: _judged(width=None),
    }
    assert verdicts(known | found, list(known), list(found)) == {
        10: Verdict.SAFE,
        11: Verdict.TWO,
        12: Verdict.CLOSE,
        13: Verdict.MIXED,
        14: Verdict.DOUBTFUL,
        15: Verdict.DOUBTFUL,
        16: Verdict.FEW,
    }
    stable = {20 + n: _judged(stability=float(n)) for n in range(8)}
    told = verdicts(known | stable, list(known), list(stable))
    assert [i for i, v in told.items() if v is Verdict.DOUBTFUL] == [20, 21]


def test_a_partition_is_compared_crop_by_crop():
    ours, theirs = np.array([0, 0, 0, 1, 1, -1, 1]), np.array([5, 5, 2, 2, 2, 2, -1])
    assert best_overlaps(ours, theirs) == {0: pytest.approx(2 / 3), 1: pytest.approx(2 / 3)}
    assert best_overlaps(ours[:0], theirs[:0]) == {}


def test_points_are_means_of_all_crops_and_a_few_of_each_class(monkeypatch):
    monkeypatch.setattr(class_points, "_PER_CLASS", 5)
    view = many_classes(8, 3, 12)
    crops = read_crops_assigned(view)
    assert crops is not None
    class_N = class_of_every_crop(view, crops)
    wanted = np.arange(0, len(class_N), 7)
    points = read_class_points(view, "embeddings", class_N, wanted)
    assert points is not None
    rows = np.stack(view.table("embeddings").read()["embedding"].to_pylist())  # type: ignore[union-attr]
    middle = rows.mean(axis=0)
    for c in range(8):
        mean = rows[class_N == c].mean(axis=0) - middle
        assert np.allclose(points.means_CD[c], mean / np.linalg.norm(mean), atol=1e-5)
    assert set(np.bincount(points.place_S)) <= {3, 4, 5}
    assert points.map_M.tolist() == wanted.tolist()
    assert np.allclose(points.map_MD, rows[wanted], atol=1e-6)
