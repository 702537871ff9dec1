"""Crops as small pictures by number, in constant memory.

They are read from table ``crops`` a shard at a time, which checks its SHA-256. What is shown on one
page lies in many shards, and several crops of it in each: so whoever is about to show crops says
so, and a shard that is read for one of them serves all that are wanted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock

from gcdis_ray.report.gallery import draw_crop, read_crops
from gcdis_ray.store.artifacts import Table

OUTLINE = "#f2b134"
_WANTED = 4_000  # numbers of crops
_DRAWN = 4_000  # pictures of at most about 4 kB


class Pictures:
    """Safe to ask from several threads.

    Args:
        crops: table ``crops``.
    """

    def __init__(self, crops: Table) -> None:
        self._crops = crops
        self._ends: list[int] = []
        for shard in crops.shards:
            self._ends.append((self._ends[-1] if self._ends else 0) + (shard.rows or 0))
        self._wanted: OrderedDict[int, None] = OrderedDict()
        self._drawn: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def want(self, crops: Iterable[int]) -> None:
        """That these will be asked for soon."""
        with self._lock:
            for crop in crops:
                self._wanted[crop] = None
                self._wanted.move_to_end(crop)
            while len(self._wanted) > _WANTED:
                self._wanted.popitem(last=False)

    def jpeg(self, crop: int) -> bytes | None:
        """The picture of a crop; None if there is no such crop.

        Raises:
            ArtifactError: the shard it lies in is damaged or gone.
        """
        with self._lock:
            if crop not in self._drawn and 0 <= crop < self._crops.num_rows:
                self._draw(crop)
            return self._drawn.get(crop)

    def _draw(self, crop: int) -> None:
        home = self._home(crop)
        beside = [c for c in self._wanted if c not in self._drawn and self._home(c) == home]
        for index, row in read_crops(self._crops, [*beside, crop]).items():
            self._drawn[index] = draw_crop(row["jpeg"], row["mask_png"], OUTLINE)[0]
            self._wanted.pop(index, None)
        self._drawn.move_to_end(crop)
        while len(self._drawn) > _DRAWN:
            self._drawn.popitem(last=False)

    def _home(self, crop: int) -> int:
        """Number of the shard: crops are numbered in the order of shards."""
        return bisect_right(self._ends, crop)
