"""From acts and what discovery found to the classes that people made of it.

Shape letters: N crops, K clusters of discovery.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcdis_ray.curating.acts import Act, Merge, Move, Name, Reject, Split, plain, standing
from gcdis_ray.errors import CurationError
from gcdis_ray.lookup import places
from gcdis_ray.store.members import Members
from gcdis_ray.words import cut, shown, some

REJECTED = -1
_NAMELESS = re.compile(r"novel \d+")  # casefolded


@dataclass(frozen=True)
class Curated:
    """Classes after all acts.

    Args:
        cluster_N: int32, ``class_index`` of each crop, in the order of the crops that were given;
            -1 for crops of a rejected cluster. A labeled crop is never rejected: where its cluster
            is, it goes back to the class it was given.
        classes: rows of ``class_index`` (0, 1, ...), ``name``, ``known``, ``category_id`` and
            ``clusters``, the clusters of discovery that it is made of, rising. Known classes come
            first, as they were; then those that are left of the discovered ones, in their order;
            then parts that were split off, by their lowest crop, whose ``clusters`` are empty.
        names: ``class_index`` -> the name that people gave it; it is in ``classes``, too.
        rejected: clusters of discovery that are no class, rising.
    """

    cluster_N: NDArray[np.int32]
    classes: list[dict[str, Any]]
    names: dict[int, str]
    rejected: list[int]


def replay(
    acts: Iterable[Act],
    crop_index_N: NDArray[np.integer],
    cluster_N: NDArray[np.integer],
    classes: Sequence[Mapping[str, Any]],
    class_index_N: NDArray[np.integer],
) -> Curated:
    """Follow acts, one after another; those that are taken back count as never said.

    A merged class keeps the id of a known class if it has one, else the lowest, and the name that
    was given to this one, else to another of them. A part that is split off has no name.

    Args:
        crop_index_N: crops, each once, in any order.
        cluster_N: where discovery put each of them: a ``class_index`` of ``classes``, -1 for none.
        classes: rows of ``discovered_classes``: all ids from 0 on, known ones first.
        class_index_N: the class that a labeled crop was given, -1 for an unlabeled one.

    Raises:
        CurationError: an act that cannot be followed, with the place where it is written: a name
            that another class has, known classes joined, a known class named or rejected, a split
            of labeled crops, of crops of several clusters or of a whole one, a crop that is not
            there or whose cluster was rejected before.
    """
    state = _State(crop_index_N, cluster_N, classes, class_index_N)
    for act in standing(acts):
        try:
            state.follow(act)
        except _Refused as refused:
            raise CurationError(
                str(refused),
                where=act.note.where or f"decisions of people: {cut(str(plain(act)))}",
                fix="take that act back, or out of the log",
            ) from None
    return state.curated()


def replay_over(found: Members, acts: Iterable[Act]) -> Curated:
    """Acts over what discovery found.

    Args:
        found: has document ``discovered_classes`` of a discovery, and what
            :func:`clusters_found` reads of it.

    Raises:
        CurationError: as :func:`replay`.
    """
    crop_index_N, cluster_N, label_N = clusters_found(found)
    return replay(acts, crop_index_N, cluster_N, found.json("discovered_classes"), label_N)


def clusters_found(found: Members) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """What acts are about: of each crop its ``crop_index``, its cluster before any act, -1 for
    none, and the class it was given, -1 for none.

    Args:
        found: has table ``assignments`` and, where some crops are in no class, ``partition``.
    """
    columns = ["crop_index", "cluster_id", "class_index"]
    rows = found.table("assignments").read(columns)
    crop_index_N, cluster_N, label_N = (rows[name].to_numpy() for name in columns)
    if found.has("partition"):  # of the same crops, shard by shard
        cluster_N = found.table("partition").read(["cluster_id"])["cluster_id"].to_numpy()
    return crop_index_N, cluster_N, label_N


class _Refused(Exception):
    """Why an act cannot be followed."""


class _State:
    """Crops lie in *pieces*: a cluster of discovery, those in none, or what a split took out of
    others. Pieces make up classes. So an act costs as much as the crops it lists, however many
    there are."""

    def __init__(
        self,
        crop_index_N: NDArray[np.integer],
        cluster_N: NDArray[np.integer],
        classes: Sequence[Mapping[str, Any]],
        class_index_N: NDArray[np.integer],
    ) -> None:
        self.rows = sorted(classes, key=lambda row: row["class_index"])
        self.num_clusters = len(self.rows)
        self.num_known = sum(bool(row["known"]) for row in self.rows)
        self.crops = np.asarray(crop_index_N, np.int64)
        self.order = np.argsort(self.crops, kind="stable")
        self.rising = self.crops[self.order]
        self.label_N = np.asarray(class_index_N, np.int64)
        self.piece_N = np.array(cluster_N, np.int64)
        self.piece_N[self.piece_N < 0] = self.num_clusters  # those that are in none
        self.size = np.bincount(self.piece_N, minlength=self.num_clusters + 1).tolist()
        # of each piece: its class, REJECTED for none
        self.class_of = [*range(self.num_clusters), REJECTED]
        self.names: dict[int, str] = {}  # class -> what people call it

    def follow(self, act: Name | Move) -> None:
        if isinstance(act, Name):
            self._name(self._class_of_crop(act.crop), act.name)
        elif isinstance(act, Merge):
            self._merge({self._class_of_crop(crop) for crop in act.crops})
        elif isinstance(act, Split):
            self._split(act.crops)
        else:
            assert isinstance(act, Reject)
            self._reject(self._class_of_crop(act.crop))

    def _rows_of(self, crops: Sequence[int]) -> NDArray[np.int64]:
        place = places(np.array(crops, np.int64), self.rising)
        if (gone := np.flatnonzero(place < 0)).size:
            raise _Refused(f"there is no crop {crops[gone[0]]}")
        return self.order[place]

    def _class_of_crop(self, crop: int) -> int:
        found = self.class_of[self.piece_N[self._rows_of([crop])[0]]]
        if found == REJECTED:
            raise _Refused(f"crop {crop} is in no class: its cluster was rejected")
        return found

    def _is_known(self, which: int) -> bool:
        return which < self.num_known

    def _shown(self, which: int) -> str:
        """A class, for a message."""
        if which in self.names:
            return shown(self.names[which])
        return shown(self.rows[which]["name"]) if which < self.num_clusters else "a part split off"

    def _name(self, which: int, name: str) -> None:
        if self._is_known(which):
            raise _Refused(f"a known class keeps its name, {self._shown(which)}")
        others = self.names.items() | {(c, row["name"]) for c, row in enumerate(self.rows)}
        if name.casefold() in {text.casefold() for other, text in others if other != which}:
            raise _Refused(f"the name {shown(name)} is another class's")
        if _NAMELESS.fullmatch(name.casefold()) and name != self._row_name(which):
            raise _Refused(f"{shown(name)} is how classes without a name are told apart")
        self.names[which] = name

    def _row_name(self, which: int) -> str | None:
        return self.rows[which]["name"] if which < self.num_clusters else None

    def _merge(self, joined: set[int]) -> None:
        known = sorted(filter(self._is_known, joined))
        if len(known) > 1:
            told = " and ".join(map(self._shown, known[:2]))
            raise _Refused(f"{told} are known classes, and stay apart")
        kept = min(joined)  # known ones are lower than all others
        self.class_of = [kept if c in joined else c for c in self.class_of]
        names = [name for c in sorted(joined) if (name := self.names.pop(c, None)) is not None]
        if names and not known:
            self.names[kept] = names[0]

    def _split(self, crops: Sequence[int]) -> None:
        rows = self._rows_of(crops)
        labeled = [crop for crop, row in zip(crops, rows, strict=True) if self.label_N[row] >= 0]
        if labeled:
            raise _Refused(f"crop {some(labeled, 3)} is labeled, and keeps its class")
        found = {self._class_of_crop(crop) for crop in crops}
        if len(found) > 1:
            first, second = sorted(found)[:2]
            raise _Refused(
                f"the crops lie in several clusters: {self._shown(first)}, {self._shown(second)}"
            )
        which = found.pop()
        if sum(n for n, c in zip(self.size, self.class_of, strict=True) if c == which) == len(rows):
            raise _Refused(f"that is the whole cluster {self._shown(which)}: nothing would be left")
        for piece in self.piece_N[rows].tolist():
            self.size[piece] -= 1
        self.piece_N[rows] = len(self.size)
        self.class_of.append(len(self.size))
        self.size.append(len(rows))

    def _reject(self, which: int) -> None:
        if self._is_known(which):
            raise _Refused(f"{self._shown(which)} is a known class, and stays one")
        self.class_of = [REJECTED if c == which else c for c in self.class_of]
        self.names.pop(which, None)

    def curated(self) -> Curated:
        there = sorted(set(self.class_of) - {REJECTED}, key=self._place())
        pieces: dict[int, list[int]] = {which: [] for which in there}
        for piece in range(self.num_clusters):
            if self.class_of[piece] != REJECTED:
                pieces[self.class_of[piece]].append(piece)
        number = {which: n for n, which in enumerate(there)}
        table = np.array([number.get(which, REJECTED) for which in self.class_of], np.int32)
        cluster_N = table[self.piece_N]
        back_N = (cluster_N == REJECTED) & (self.label_N >= 0)
        cluster_N[back_N] = self.label_N[back_N]
        free = self.num_clusters - self.num_known  # of the numbers of nameless classes
        rows: list[dict[str, Any]] = []
        for which in there:
            if which < self.num_clusters:
                row = dict(self.rows[which])
            else:
                free += 1
                row = {"name": f"novel {free}", "known": False, "category_id": None}
            told = {"name": self.names[which]} if which in self.names else {}
            rows.append({**row, **told, "class_index": len(rows), "clusters": pieces[which]})
        names = {number[which]: name for which, name in self.names.items()}
        rejected = [k for k in range(self.num_clusters) if self.class_of[k] == REJECTED]
        return Curated(cluster_N, rows, names, rejected)

    def _place(self) -> Callable[[int], tuple[int, int]]:
        """What classes are sorted by: their number, parts that were split off by lowest crop."""
        split_N = np.flatnonzero(self.piece_N >= self.num_clusters)
        lowest = np.full(len(self.class_of), np.iinfo(np.int64).max)
        classes = np.array(self.class_of)[self.piece_N[split_N]]
        kept = classes >= self.num_clusters
        np.minimum.at(lowest, classes[kept], self.crops[split_N[kept]])
        return lambda which: (0, which) if which < self.num_clusters else (1, int(lowest[which]))
