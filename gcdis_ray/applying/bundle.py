"""A bundle: all that a trained segmenter needs, in a folder that can be moved anywhere.

``segmenter.safetensors`` and ``bundle.json``, which says what the other is, of which classes, and
has the SHA-256 of all of it. Nothing in a bundle can run code.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, ConfigDict

import gcdis_ray
from gcdis_ray.applying.trained import Trained
from gcdis_ray.config import validate
from gcdis_ray.errors import ArtifactError, ConfigError, StorageError
from gcdis_ray.store.artifacts import canonical_json
from gcdis_ray.store.storage import Storage, open_storage

BUNDLE = "bundle.json"
FORMAT = 1
_WEIGHTS = "segmenter.safetensors"
_AGAIN = "copy the bundle again, or make it again: gcdis bundle RUN FOLDER"
_FIELDS = ("name", "classes", "names", "detector", "limits", "files", "versions")


class _Part(BaseModel):
    """Of the table: what is read of it has the type that it is read as."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Class(_Part):
    class_index: int
    name: str
    known: bool
    category_id: int | None


class _File(_Part):
    bytes: int
    sha256: str


class _Limits(_Part):
    min_score: float
    max_per_image: int


class _Table(_Part):
    name: str
    classes: list[_Class]
    names: list[str]
    detector: dict[str, Any]
    limits: _Limits
    files: dict[str, _File]


def write_bundle(trained: Trained, place: str) -> bool:
    """Write a bundle to a folder or ``s3://bucket/prefix``.

    Returns:
        False: the same bundle is there already.

    Raises:
        StorageError: something else is there, or it cannot be written.
        ArtifactError: the same bundle is there, but damaged.
    """
    storage = open_storage(place)
    there = set(storage.list(""))
    told = _told(trained)
    if there:
        if not _is_there(storage, told, there):
            raise StorageError(
                f"the folder is not empty, it has {sorted(there)[0]}",
                where=storage.uri,
                fix="name another folder",
            )
        if _WEIGHTS in there:
            read_bundle(storage).read_weights()
            return False
    storage.write(BUNDLE, (json.dumps(told, indent=1) + "\n").encode())
    storage.write(_WEIGHTS, trained.read_weights())
    return True


def _is_there(storage: Storage, told: Mapping[str, Any], there: set[str]) -> bool:
    """Whether a folder holds that bundle, or what an interrupted command has left of it."""
    if BUNDLE not in there or there - {BUNDLE, _WEIGHTS}:
        return False
    try:
        return json.loads(storage.read(BUNDLE)) == told
    except ValueError:
        return False


def _told(trained: Trained) -> dict[str, Any]:
    told = {
        "format": FORMAT,
        "name": trained.name,
        "classes": list(trained.table),
        "names": list(trained.names),
        "classes_sha256": _classes_digest(trained.table, trained.names),
        "detector": dict(trained.spec),
        "limits": dict(trained.limits),
        "files": {_WEIGHTS: {"bytes": trained.num_bytes, "sha256": trained.sha256}},
        "versions": {
            "gcdis_ray": gcdis_ray.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        },
    }
    return {**told, "sha256": _digest(told)}


def has_bundle(storage: Storage) -> bool:
    """Whether a bundle lies there, whole or not."""
    try:
        storage.read_part(BUNDLE, 0, 1)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_bundle(storage: Storage) -> Trained:
    """A bundle, held to what it says of itself. Its weights are held to that when they are read.

    Raises:
        ArtifactError: of another format, a changed class table or byte, a file that is gone.
    """
    where = f"{storage.uri}/{BUNDLE}"
    try:
        told: Any = json.loads(storage.read(BUNDLE))
        given = told["format"]
    except RecursionError:
        raise ArtifactError("this is no bundle's table", where=where, fix=_AGAIN) from None
    except FileNotFoundError:
        raise ArtifactError("no bundle lies there", where=storage.uri, fix=_AGAIN) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError("this is no bundle's table", where=where, fix=_AGAIN) from error
    if given != FORMAT:
        raise ArtifactError(
            f"a bundle of format {given!r}; known: {FORMAT}",
            where=where,
            fix="use the version of gcdis that made it",
        )
    if absent := [name for name in _FIELDS if name not in told]:
        raise ArtifactError(f"it lacks {', '.join(absent)}", where=where, fix=_AGAIN)
    try:
        validate(_Table, told, where)
    except ConfigError as error:
        raise ArtifactError(error.what, where=where, fix=_AGAIN) from None
    if told.get("classes_sha256") != _classes_digest(told["classes"], told["names"]):
        raise ArtifactError(
            "its class table is not the one that its weights were bundled with",
            where=where,
            fix="names are given by gcdis name, and come with the next gcdis bundle",
        )
    if told.get("sha256") != _digest({k: v for k, v in told.items() if k != "sha256"}):
        raise ArtifactError("the file is damaged (SHA-256 differs)", where=where, fix=_AGAIN)
    if len(told["classes"]) != len(told["names"]) or _WEIGHTS not in told["files"]:
        raise ArtifactError("it has not one name a class, and weights", where=where, fix=_AGAIN)
    file = told["files"][_WEIGHTS]
    try:
        storage.read_part(_WEIGHTS, 0, 1)
    except FileNotFoundError:
        raise ArtifactError("file is gone", where=f"{storage.uri}/{_WEIGHTS}", fix=_AGAIN) from None
    return Trained(
        name=told["name"],
        storage=storage,
        path=_WEIGHTS,
        num_bytes=file["bytes"],
        sha256=file["sha256"],
        spec=told["detector"],
        table=told["classes"],
        names=told["names"],
        limits=told["limits"],
    )


def _classes_digest(table: Any, names: Any) -> str:
    return _digest({"classes": table, "names": names})


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
