"""Processes that carry a mark: whatever a program of a test started, Ray's included."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

# Ray's helpers try for 60 s to tell a driver that was killed outright what happened to it.
LAST_WORDS_S = 120

looks_into_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="looks into /proc"
)


class Mark:
    """An environment variable that every process of one program inherits."""

    def __init__(self, name: str) -> None:
        self._value = f"{name}-{time.monotonic_ns()}"
        self.variable = {"GCDIS_TEST_MARK": self._value}

    def processes(self) -> dict[int, str]:
        """Process id -> command line, of those that live."""
        mark = f"GCDIS_TEST_MARK={self._value}".encode()
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
        return found

    def left_over(self, within_s: float) -> list[str]:
        """Commands of those still there after ``within_s``."""
        deadline = time.monotonic() + within_s
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return [command[:80] for command in found.values()]
