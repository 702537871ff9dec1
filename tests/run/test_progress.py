"""The line that says how far work is that is no stage."""

from __future__ import annotations

import io

import pytest

from gcdis_ray.run.progress import WorkLine
from gcdis_ray.training.plan import Progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), _Terminal()], ids=["a log", "a terminal"])
def test_rate_and_time_left(stream: io.StringIO):
    now = iter([0.0, 20.0, 40.0])
    with WorkLine("gc", stream, lambda: next(now)) as line:
        line(Progress(10, 100, "artifacts"))
        line(Progress(30, 100, "artifacts", note="label/0123"))
    drawn = stream.getvalue()
    assert (
        "  gc           30/100 artifacts   30 %  1 artifacts/s  1 min 10 s left  label/0123"
        in drawn
    )
    # On a terminal nothing of it stays.
    assert drawn.endswith("\r\x1b[2K" if stream.isatty() else "\n")


def test_work_that_is_over_at_once_says_nothing():
    stream = _Terminal()
    with WorkLine("report", stream, lambda: 0.0) as line:
        line(Progress(0, 11, "stages"))
    assert stream.getvalue() == ""
