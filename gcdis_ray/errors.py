"""The errors a user can meet. Each says what, where, and what to do next, in a line or two.

Everything derived from :class:`GcdisError` is a mistake in the input or the surroundings, not in
our code: the command line prints it without a traceback and exits with code 2.
"""

from __future__ import annotations

from typing import Self


class GcdisError(Exception):
    """A problem the user can solve.

    Args:
        what: the problem, with the value seen.
        where: the config key, URI or record that holds it.
        fix: the command to run or the valid choices.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  next: {self.fix}" if self.fix else text

    def at(self, where: str, fix: str | None = None) -> Self:
        """The same problem, said by one who knows the config key and what to change there."""
        return type(self)(self.what, where=where, fix=fix or self.fix)

    def __reduce__(self):  # keyword arguments must survive the trip out of a Ray worker
        return _rebuild, (type(self), self.what, self.where, self.fix)


def _rebuild(kind: type[GcdisError], what: str, where: str | None, fix: str | None) -> GcdisError:
    return kind(what, where=where, fix=fix)


class ConfigError(GcdisError):
    """A config file or override that cannot be run as written."""


class DataError(GcdisError):
    """Input data that is missing, unreadable or beyond the quarantine limit."""


class CurationError(GcdisError):
    """What people decided about classes, and that cannot be followed, or not be read."""


class ArtifactError(GcdisError):
    """A stored artifact that is missing, damaged or of another schema."""


class StorageError(GcdisError):
    """Storage that cannot be reached, read or written."""


class RuntimeUnavailable(GcdisError):
    """Ray, a cluster or a resource that the run asked for and cannot get."""


class WorkersLost(RuntimeUnavailable):
    """Work whose workers died as often as is allowed, as they do when it wants too much memory. A
    mistake of that work where there is other work beside it: see ``runtime.failures``."""


class Stopped(GcdisError):
    """Work that was told to end early, by raising this from its progress callback. Not a mistake:
    whoever told it catches it."""
