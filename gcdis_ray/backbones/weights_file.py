"""A weights file as bytes: is it there, is it the pinned one? Without torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from gcdis_ray.errors import ConfigError


def file_sha256(path: Path) -> str:
    """SHA-256 of a weights file as hexadecimal digits.

    Raises:
        ConfigError: it cannot be read.
    """
    return hashlib.sha256(_read(path)).hexdigest()


def read_pinned(path: Path, sha256: str | None) -> bytes:
    """The file's bytes.

    Args:
        sha256: refuse any other file.

    Raises:
        ConfigError: it cannot be read, or is another one.
    """
    data = _read(path)
    if sha256 is not None:
        check_pinned(data, sha256, str(path))
    return data


def check_pinned(data: bytes, sha256: str, where: str) -> None:
    """Raise ConfigError unless the file's bytes have this SHA-256.

    Args:
        where: path or address of the file.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ConfigError(
            f"the weights have SHA-256 {found}, the config wants {sha256}",
            where=where,
            fix="use the file that was pinned, or pin this one",
        )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the weights: {error.strerror or error}",
            where=str(path),
            fix="mend the path that the config gives as weights",
        ) from error
