"""Which strategies of training can be had here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

HAS_DEEPSPEED = find_spec("deepspeed") is not None
needs_deepspeed = pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed is not built here")


def can_be_had(compute: Mapping[str, Any]) -> bool:
    return HAS_DEEPSPEED or compute.get("strategy") != "deepspeed"
