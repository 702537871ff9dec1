"""Where crops lie in a space, class by class: what the map is drawn of and classes are judged by.

Shape letters: N crops, C classes, D dimensions, M crops of the map, S crops that classes are judged
by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.lookup import rank_in_group
from gcdis_ray.report.view import RunView

_PER_CLASS = 32  # crops that a class is judged by
_MAX_NUMBERS = 4e7  # of all of them together: 160 MB
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class ClassPoints:
    """A space (frozen embeddings, or discovery's projection) as its classes see it.

    Directions are unit vectors, seen from the mean of all crops: what all have in common, which is
    a large part of frozen features, says nothing of classes.

    Args:
        classes_C: class_index of the classes with a crop, rising.
        means_CD: directions, over all crops of a class, labeled or not.
        sample_SD: directions of a few crops of each class, evenly spread over the stored order.
        place_S: of each one's class in ``classes_C``.
        most: how many of a class, at most.
        map_MD: of the crops that were asked for, in the order of ``map_M``.
        map_M: their crop_index, rising; those that the space does not know are left out.
    """

    classes_C: NDArray[np.int64]
    means_CD: Floats
    sample_SD: Floats
    place_S: NDArray[np.int64]
    most: int
    map_MD: Floats
    map_M: NDArray[np.int64]


def read_class_points(
    view: RunView, member: str, class_N: NDArray[np.int64], wanted_M: NDArray[np.int64]
) -> ClassPoints | None:
    """In one reading of the space, a shard at a time.

    Args:
        member: a table with ``crop_index`` and ``embedding``.
        class_N: class of each crop by crop_index; negative for those without one.
        wanted_M: rising crop_index of the crops of the map.

    Returns:
        None without the table, or without crops in it.
    """
    table = view.table(member)
    if table is None or not table.num_rows or not (class_N >= 0).any():
        return None
    classes_C, sizes_C = np.unique(class_N[class_N >= 0], return_counts=True)
    place_N = np.where(class_N < 0, -1, np.searchsorted(classes_C, class_N))
    sums_CD: Floats | None = None
    most, judged_N = _PER_CLASS, np.zeros(len(class_N), np.bool_)
    wanted_N = np.zeros(len(class_N), np.bool_)
    wanted_N[wanted_M] = True
    sample, places, mapped, mapped_index = [], [], [], []
    for shard in table.iter_shards(["crop_index", "embedding"], ahead=2):
        if not shard.num_rows:
            continue
        index, rows = shard["crop_index"].to_numpy(), _unit(matrix(shard["embedding"]))
        if sums_CD is None:
            sums_CD = np.zeros((len(classes_C), rows.shape[1]))
            most = int(np.clip(_MAX_NUMBERS / sums_CD.size, 4, _PER_CLASS))
            judged_N = _spread(place_N, sizes_C, most)
        place = place_N[index]
        _add(sums_CD, place, rows)
        here = judged_N[index]
        sample.append(rows[here])
        places.append(place[here])
        mapped.append(rows[wanted_N[index]])
        mapped_index.append(index[wanted_N[index]])
    assert sums_CD is not None
    middle_D = sums_CD.sum(axis=0) / sizes_C.sum()
    map_M = np.concatenate(mapped_index)
    order = np.argsort(map_M)
    return ClassPoints(
        classes_C,
        _unit(sums_CD / sizes_C[:, None] - middle_D),
        _unit(np.concatenate(sample) - middle_D),
        np.concatenate(places),
        most,
        np.concatenate(mapped)[order],
        map_M[order],
    )


def _unit(rows_ND: Floats) -> Floats:
    lengths = np.linalg.norm(rows_ND, axis=1, keepdims=True)
    return rows_ND / np.where(lengths > 0, lengths, 1)


def _spread(place_N: NDArray[np.int64], sizes_C: NDArray[np.int64], most: int) -> NDArray[np.bool_]:
    """(N,) which crops stand for their class: at most ``most`` of each, evenly spread."""
    order = np.argsort(place_N, kind="stable")
    order = order[np.searchsorted(place_N[order], 0) :]
    stride_C = -(-sizes_C // most)
    place = place_N[order]
    chosen = np.zeros(len(place_N), np.bool_)
    chosen[order[rank_in_group(place) % stride_C[place] == 0]] = True
    return chosen


def _add(sums_CD: Floats, place: NDArray[np.int64], rows: Floats) -> None:
    """Add each row to the sum of its class, in the order of the rows."""
    mine = np.flatnonzero(place >= 0)
    order = mine[np.argsort(place[mine], kind="stable")]
    if len(order):
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        sums_CD[place[order[starts]]] += np.add.reduceat(rows[order], starts, axis=0)
