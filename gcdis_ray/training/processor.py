"""What a processor can do, as its system tells: needs no torch."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

_UNITS = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86, x86 and Arm


def has_bf16_units() -> bool | None:
    """Whether this machine's processor multiplies in bf16 by itself; None: nobody knows."""
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return said.strip() == "1"  # a Mac that does not know the name has none
    try:
        return bf16_units_in(Path("/proc/cpuinfo").read_text())
    except OSError:
        return None


def bf16_units_in(cpuinfo: str) -> bool | None:
    """The same, of a ``/proc/cpuinfo``."""
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.M)
    return not _UNITS.isdisjoint(lines[0].split()) if lines else None
