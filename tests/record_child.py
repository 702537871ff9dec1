"""A process that reads files for another one, and may die of them.

A line of its input is a kind, ``truth`` or ``results``, and a file in base 64; it answers with a
line of JSON: what :func:`record_readers.judge_truth` or ``judge_results`` gives, and ``peak``, its
greatest memory so far in bytes. What no reader names is ``traceback``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from peak_memory import peak_bytes

MOST_BYTES = 1 << 30


class Child:
    """A process that answers one question after another."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def judge(self, kind: str, content: bytes) -> dict[str, Any]:
        """What the readers say, or ``{"died": exit status}``."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{kind} {base64.b64encode(content).decode()}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            return json.loads(answer)
        self.close()
        return {"died": process.returncode}

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None


def main() -> None:
    from record_readers import judge_results, judge_truth

    judges = {"truth": judge_truth, "results": judge_results}

    with tempfile.TemporaryDirectory() as folder:
        for n, line in enumerate(sys.stdin):
            kind, content = line.split()
            try:
                answer: dict[str, Any] = dict(
                    judges[kind](Path(folder), base64.b64decode(content), f"{n}.json", n % 20 == 0)
                )
            except Exception:  # what this is for
                answer = {"traceback": traceback.format_exc()}
            answer["peak"] = peak_bytes()
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
