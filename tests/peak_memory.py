"""The most memory that this process has had."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """On Linux from its start as a program: the other count begins with what its parent had."""
    if _STATUS.exists():
        (line,) = [text for text in _STATUS.read_text().splitlines() if text.startswith("VmHWM")]
        return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
