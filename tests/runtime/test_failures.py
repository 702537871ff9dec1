"""What ends one trial, and what ends all of them."""

from __future__ import annotations

import errno

import pytest

from gcdis_ray.errors import DataError, RuntimeUnavailable, StorageError
from gcdis_ray.runtime.failures import line_of


def test_a_trial_s_own_error_is_one_line():
    assert line_of(DataError("is broken", where="photo 17", fix="leave it out")) == (
        "photo 17: is broken"
    )
    assert line_of(ValueError("first\nlast")) == "ValueError: last"
    assert line_of(KeyError()) == "KeyError: no message"


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
