"""The user's weights file as bytes: is it there, is it the pinned one? No torch: ``run`` looks at
it before torch is imported."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
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


def check_format(path: Path, sha256: str | None) -> None:
    """Raise ConfigError unless it is the pinned file and looks like a safetensors or npz file.
    Whether its tensors fit a net is seen when they are read."""
    data = read_pinned(path, sha256)
    if path.suffix == ".npz":
        right = zipfile.is_zipfile(io.BytesIO(data))
    else:
        length = int.from_bytes(data[:8], "little")
        right = 8 + length <= len(data) and _is_json_object(data[8 : 8 + length])
    if not right:
        raise ConfigError(
            "neither a safetensors nor an npz file",
            where=str(path),
            fix="save the weights, in torchvision's layout, with safetensors",
        )


def _is_json_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the weights: {error.strerror or error}",
            where=str(path),
            fix="mend the path that the config gives as weights",
        ) from error
