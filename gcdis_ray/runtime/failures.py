"""Which errors end one trial, and which end all of them."""

from __future__ import annotations

import errno

from gcdis_ray.errors import GcdisError, RuntimeUnavailable, StorageError, WorkersLost

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def line_of(error: Exception) -> str:
    """One line for the record of a trial that ended with this error.

    Raises:
        StorageError, RuntimeUnavailable: it is not the trial's own: the next one would meet it,
            too, and the same trial will do well once the surroundings do.
    """
    ours = isinstance(error, WorkersLost)  # a trial may be too large where others fit
    if isinstance(error, StorageError | RuntimeUnavailable) and not ours:
        raise error
    if isinstance(error, OSError) and error.errno in _FULL:
        raise StorageError(
            error.strerror or str(error),
            where=error.filename,
            fix="free disk space and run again: finished work is kept",
        ) from error
    if isinstance(error, GcdisError):
        return str(error).splitlines()[0]
    first = (str(error).strip() or "no message").splitlines()[-1]
    return f"{type(error).__name__}: {first}"
