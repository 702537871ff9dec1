"""What ends one trial, and what ends all of them."""

from __future__ import annotations

import errno
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from toy_trials import ToyTrials

from gcdis_ray.errors import DataError, GcdisError, RuntimeUnavailable, StorageError, WorkersLost
from gcdis_ray.runtime.failures import line_of


def test_a_trial_s_own_error_is_one_line():
    assert line_of(DataError("is broken", where="photo 17", fix="leave it out")) == (
        "photo 17: is broken"
    )
    assert line_of(ValueError("first\nlast")) == "ValueError: last"
    assert line_of(KeyError()) == "KeyError: no message"


def test_a_trial_that_loses_its_workers_ends_alone():
    lost = WorkersLost("training workers died 4 time(s): out of memory", where="compute")
    assert line_of(lost) == "compute: training workers died 4 time(s): out of memory"


@pytest.mark.parametrize("kind", [StorageError, RuntimeUnavailable])
def test_the_surroundings_errors_are_raised_again(kind: type[Exception]):
    error = kind("cannot be reached")
    with pytest.raises(kind) as caught:
        line_of(error)
    assert caught.value is error


def test_a_full_disk_is_no_trial_s_fault():
    with pytest.raises(StorageError, match="No space left"):
        line_of(OSError(errno.ENOSPC, "No space left on device", "/scratch/x"))
    assert line_of(OSError(errno.ENOENT, "none")) == "FileNotFoundError: [Errno 2] none"


class TestEndsOfTrials:
    """What Tune's callback makes of a trial that is over; no Ray is started for it."""

    def ends(self) -> tuple[Any, ToyTrials, threading.Event]:
        from gcdis_ray.runtime.ray_tune import _Ends

        trials, closing = ToyTrials([]), threading.Event()
        return _Ends(trials, closing), trials, closing

    def trial(self, **result: Any) -> Any:
        return SimpleNamespace(last_result=result, config={"number": 4})

    def test_nothing_is_recorded_while_all_is_closed(self):
        ends, trials, closing = self.ends()
        ends.on_trial_complete(0, [], self.trial(error="its own", outcome="null"))
        assert trials.errors == {4: "its own"}
        trials.errors.clear()
        closing.set()
        ends.on_trial_complete(0, [], self.trial(error="killed", outcome="null"))
        ends.on_trial_error(0, [], self.trial())
        assert trials.errors == {}

    @pytest.mark.parametrize("kind", [StorageError, RuntimeUnavailable])
    def test_a_fault_of_the_surroundings_is_kept_and_closes(self, kind: type[GcdisError]):
        from gcdis_ray.runtime.ray_tune import _packed

        ends, trials, closing = self.ends()
        fault = kind("cannot be reached", where="s3://bucket", fix="check the network")
        ends.on_trial_complete(0, [], self.trial(fault=_packed(fault), outcome="null"))
        assert type(ends.fault) is kind
        assert str(ends.fault) == str(fault)
        assert closing.is_set()
        assert trials.errors == {}
