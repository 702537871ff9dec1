"""The fuzz run of ``make fuzz``, in small."""

from __future__ import annotations

import pytest
from fuzz_records import fuzz


@pytest.mark.thorough
def test_spoiled_files_are_read_or_refused() -> None:
    totals = fuzz(0, 1000, float("inf"), at_once=600)
    assert totals["inputs"] == totals["accepted"] + totals["refused"] == 1000
    assert totals["accepted"] > 100
    assert not totals["traceback"]
    assert not totals["crash"]
    assert totals["peak MB"] < 1000
