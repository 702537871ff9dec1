"""How much memory a piece of a benchmark takes. Linux only."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Event, Thread


class PeakMemory(Thread):
    """Peak of this process's anonymous memory, looked at every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb, self.file_mb, self._over = 0.0, 0.0, Event()

    def now_mb(self, name: str) -> float:
        found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
        return int(found[1]) * 1024 / 1e6 if found else 0.0

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.peak_mb = max(self.peak_mb, self.now_mb("RssAnon"))
            self.file_mb = max(self.file_mb, self.now_mb("RssFile"))

    def stop(self) -> None:
        self._over.set()
        self.join()
