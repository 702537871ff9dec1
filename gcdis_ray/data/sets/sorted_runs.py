"""Rows in any order, given back by image, in memory that hardly grows with their number.

An external merge sort: rows gather until they are worth a *run*, which is sorted and laid aside in
pieces; then all runs are read side by side, one piece of each at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from gcdis_ray.store.artifacts import Table

_RUN_BYTES = 64 << 20
_PIECE_ROWS = 8_192  # every run has one in memory while all are read


class Pieces(Protocol):
    """Lays pieces aside, then reads them: :class:`gcdis_ray.runtime.base.TableWriter`."""

    def add(self, table: pa.Table) -> None: ...
    def close(self) -> Table: ...


Spool = Callable[[str], Pieces]  # gcdis_ray.runtime.base.Work.spool


class SortedRuns:
    """Rows of one schema, sorted by its first column, then by ``then_by``."""

    def __init__(
        self, spool: Spool, name: str, then_by: Sequence[str] = (), run_bytes: int = _RUN_BYTES
    ) -> None:
        """Args:
        name: of the rows' schema in :data:`gcdis_ray.store.schemas.SCHEMAS`.
        run_bytes: about what one run may hold in memory; a few times that is used.
        """
        self._spool, self._name, self._then_by = spool, name, list(then_by)
        self._run_bytes = run_bytes
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0
        self.runs: list[Table] = []

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= self._run_bytes:
            self.flush()

    def flush(self) -> None:
        """Lay aside what was added since the last run. Call it once more at the end."""
        if not self._waiting:
            return
        rows = self._sorted(pa.concat_tables(self._waiting))
        self._waiting, self._waiting_bytes = [], 0
        pieces = self._spool(self._name)
        for start in range(0, rows.num_rows, _PIECE_ROWS):
            pieces.add(rows.slice(start, _PIECE_ROWS))
        self.runs.append(pieces.close())

    def _sorted(self, rows: pa.Table) -> pa.Table:
        keys = [rows.column_names[0], *self._then_by]
        return rows.sort_by([(key, "ascending") for key in keys])

    def parts(self, bounds: Sequence[int]) -> Iterator[pa.Table | None]:
        """Rows whose first column is below each bound and not below the one before.

        Args:
            bounds: rising; rows at or beyond the last one are not given back.

        Returns:
            one sorted table per bound, None where there is no row.
        """
        readers = [_Reader(run) for run in self.runs]
        for bound in bounds:
            found = [part for reader in readers for part in reader.below(bound)]
            yield self._sorted(pa.concat_tables(found)) if found else None


class _Reader:
    """Reads one run forward."""

    def __init__(self, run: Table) -> None:
        self._pieces = run.iter_shards()
        self._rest: pa.Table | None = next(self._pieces, None)

    def below(self, bound: int) -> Iterator[pa.Table]:
        while self._rest is not None:
            end = int(np.searchsorted(self._rest.column(0).to_numpy(), bound))
            if end:
                yield self._rest.slice(0, end)
            if end < self._rest.num_rows:
                self._rest = self._rest.slice(end)
                return
            self._rest = next(self._pieces, None)
