"""Spoils annotation and results files at random and reads them, in processes that may die of it.

``python tests/fuzz_records.py --inputs 100000``: bits flipped, bytes cut, put in or doubled, values
swapped for others, other encodings. Every input is read as ingest does, or as external masks, and
scored as a bare file. Prints totals; exit status 1 if a process died or showed a traceback. An
input is named by its number: ``--first N --inputs 1`` reads it again.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peak_memory import peak_bytes

AT_ONCE = 2000  # inputs of a process
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.0, 1.5, 2, 1e300, -1e300, 4e9, 2**31, 2**32, 2**53 + 1,
    2**63 - 1, 2**63, 2**64, 10**400, "", "0", "1", "x", "é\ud83d", "x" * 3000,
    [], [[]], [[[]]], {}, [None], [[None]], {"size": [30, 40]},
    {"size": [30.0, 40.0], "counts": [1200.0]},
    {"size": [46340, 46340], "counts": [46340**2]}, {"size": [2**20, 2**20], "counts": [2**40]},
    {"size": [30, 40], "counts": "0" * 40}, {"size": [30, 40], "counts": [-1, 1201]},
    [[1, 2, 3, 4]], [1, 2, 3, 4], [1, 2, 3, 4, 5, 6], [[0, 0, 4e9, 0, 4e9, 4e9]],
    [[0, 0, 1e6, 1e6, 0, 9] * 9], [[0, 0, 1e5, 1e5, 0, 9]], [[1, 1, 5, 1, 5]],
    [[5, 5, 5, 5, 5, 5]], [-1e9, 0, 5, 5], [0, 0, 1e308, 1e308],
)  # fmt: skip


def spoiled(content: Any, rng: random.Random) -> bytes:
    """``content`` as JSON with some mistakes in it, or one of its bytes."""
    if rng.random() < 0.6:
        content = copy.deepcopy(content)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            content = _swapped(content, rng)
    data = bytearray(json.dumps(content, indent=rng.choice((None, None, 1))).encode())
    if rng.random() < 0.5:
        for _ in range(rng.choice((1, 1, 2, 8))):
            _spoil_bytes(data, rng)
    if rng.random() < 0.03:
        text = data.decode("utf-8", "replace")
        return text.encode(rng.choice(("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-16-be")))
    return bytes(data)


def _spoil_bytes(data: bytearray, rng: random.Random) -> None:
    place, how = rng.randrange(len(data) + 1), rng.randrange(5)
    end = min(len(data), place + rng.choice((1, 2, 8, 60, 400)))
    if how == 0 and place < len(data):
        data[place] ^= 1 << rng.randrange(8)
    elif how == 1:
        del data[place:end]
    elif how == 2:
        del data[place:]
    elif how == 3:
        data[place:place] = rng.randbytes(rng.choice((1, 4, 16)))
    else:
        data[place:place] = data[place:end]


def _swapped(content: Any, rng: random.Random) -> Any:
    """One value somewhere in it is another one, twice there, gone or elsewhere."""
    places = list(_places(content))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    how = rng.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif how == 2:
        other, name = rng.choice(places)
        holder[key] = copy.deepcopy(other[name])
    elif how == 3:
        holder[key] = [holder[key]]
    else:
        holder[key] = copy.deepcopy(rng.choice(ODD))
    return {"annotations": content} if isinstance(content, list) and how == 4 else content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(content, dict | list):
        keys = list(content) if isinstance(content, dict) else range(len(content))
        for key in keys:
            yield content, key
            yield from _places(content[key])


# ---------------------------------------------------------------- one process


def read_some(first: int, last: int, told: Path) -> None:
    """Read inputs ``first`` to ``last - 1``; ``told`` says what became of them, a line each."""
    from record_readers import judge_results, judge_truth, small_results, small_truth

    kinds = ((small_truth(), judge_truth), (small_results(), judge_results))
    with tempfile.TemporaryDirectory() as folder, told.open("a") as lines:
        for number in range(first, last):
            content, judge = kinds[number % 2]
            data = spoiled(content, random.Random(number))
            print(f"{number} begun", file=lines, flush=True)
            try:
                said = judge(Path(folder), data, f"{number}.json", number % 50 == 0)
                outcome = "refused" if any(said.values()) else "accepted"
            except Exception:
                outcome = "traceback"
                sys.stderr.write(f"input {number}:\n{traceback.format_exc()}\n")
            print(f"{number} {outcome}", file=lines, flush=True)
        print(f"{peak_bytes() >> 20} MB", file=lines, flush=True)


# ---------------------------------------------------------------- all of them


def fuzz(first: int, inputs: int, seconds: float, at_once: int = AT_ONCE) -> Counter[str]:
    """Outcomes, and ``peak MB``, the greatest memory of a process."""
    totals: Counter[str] = Counter()
    number, start = first, time.monotonic()
    while number < first + inputs and time.monotonic() - start < seconds:
        last = min(number + at_once, first + inputs)
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "told"
            command = [sys.executable, __file__, "--read", str(number), str(last), str(told)]
            status = subprocess.run(command).returncode
            lines = told.read_text().splitlines() if told.exists() else []
        words = [line.split() for line in lines]
        totals.update(word for _, word in words if word not in ("begun", "MB"))
        totals["peak MB"] = max([totals["peak MB"], *(int(n) for n, w in words if w == "MB")])
        number = last
        if status != 0:
            begun = [int(n) for n, word in words if word == "begun"]
            if not begun:
                raise RuntimeError(f"the reading process ends with {status} before it reads")
            totals["crash"] += 1
            sys.stderr.write(f"input {begun[-1]}: the process ends with {status}\n")
            number = begun[-1] + 1
    totals["inputs"] = number - first
    return totals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more then")
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read_some(int(args.read[0]), int(args.read[1]), Path(args.read[2]))
        return 0
    start = time.monotonic()
    totals = fuzz(args.first, args.inputs, args.seconds)
    print(
        f"{totals['inputs']:,} inputs in {time.monotonic() - start:.0f} s: "
        f"{totals['accepted']:,} accepted, {totals['refused']:,} refused by name, "
        f"{totals['traceback']} tracebacks, {totals['crash']} crashes; "
        f"at most {totals['peak MB']} MB"
    )
    return 1 if totals["traceback"] or totals["crash"] else 0


if __name__ == "__main__":
    sys.exit(main())
