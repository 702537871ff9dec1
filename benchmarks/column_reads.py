"""Bytes that it takes to read one column of a table of crops, with and without an index.

    python benchmarks/column_reads.py
    python benchmarks/column_reads.py --crops 100000 --sides 96 128

The crops are synthetic and share files (a table may name a file more than once): a million of them
take little disk; each is read and hashed all the same. Bytes are those that a manifest's ``io``
would tell. Without an index a file is read whole, as it is of artifacts that have none.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from crop_tables import crop_rows, write_crops

from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.meter import metering

FILES, ROWS_PER_FILE = 4, 2000


def measure(crops: Table, column: str) -> tuple[pa.Table, int, float]:
    """The column, bytes read, seconds."""
    began = time.perf_counter()
    with metering() as meter:
        found = crops.read([column])
    return found, meter.read_bytes, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--crops", type=int, default=1_000_000)
    parser.add_argument("--sides", type=int, nargs=2, default=[16, 32], help="longer side, px")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gcdis-columns-") as folder:
        shards = [crop_rows(ROWS_PER_FILE, tuple(args.sides), seed) for seed in range(FILES)]
        crops = write_crops(Path(folder), shards, args.crops // (FILES * ROWS_PER_FILE))
        bare = tuple(dataclasses.replace(shard, index=None) for shard in crops.shards)
        print("| column | index | bytes read | bytes a crop | s |\n|---|---|---|---|---|")
        for column in ("class_index", "image_id"):
            found = []
            for name, table in (("yes", crops), ("no", dataclasses.replace(crops, shards=bare))):
                rows, read, seconds = measure(table, column)
                found.append(rows)
                each = read / crops.num_rows
                print(f"| {column} | {name} | {read:,} | {each:,.1f} | {seconds:.1f} |")
            assert found[0].equals(found[1])


if __name__ == "__main__":
    main()
