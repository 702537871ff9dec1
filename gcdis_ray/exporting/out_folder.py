"""The folder of an export: filled under another name, then renamed. So what lies under its own name
is whole, and a killed export is begun anew."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcdis_ray.errors import ConfigError, StorageError

SUMMARY = "export.json"  # what is in the folder; the mark of one that was exported
_LOCK = ".exporting"


@contextmanager
def out_folder(out: str, *, force: bool) -> Iterator[Path]:
    """A folder to fill, that becomes ``out`` when the block ends without an error.

    Args:
        force: whether an earlier export may be replaced.

    Raises:
        ConfigError: ``out`` is no local folder, or has other files.
        StorageError: it cannot be written; another export is writing it.
    """
    if "://" in out:
        raise ConfigError(
            f"{out} is no local folder", where="--out", fix="name one, and upload what is in it"
        )
    target = Path(out).expanduser().absolute()
    _check(target, force)
    filling = target.with_name(f"{target.name}.unfinished")
    with _writing(target):
        _check_left(filling)
        filling.mkdir(parents=True, exist_ok=True)
        with _locked(filling):
            _empty(filling)
            try:
                yield filling
            except BaseException:
                shutil.rmtree(filling, ignore_errors=True)
                raise
            (filling / _LOCK).unlink()
            _replace(target, filling)


def _check(target: Path, force: bool) -> None:
    try:
        there = sorted(os.listdir(target))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigError(
            "it, or what it lies in, is a file", where=str(target), fix="name a folder"
        ) from None
    except OSError as error:
        raise StorageError(
            error.strerror or str(error), where=str(target), fix="name a folder of yours"
        ) from error
    if SUMMARY in there:
        if not force:
            raise ConfigError(
                "holds an earlier export",
                where=str(target),
                fix="--force replaces it; or name another folder",
            )
        _summary(target)
    elif there:
        raise ConfigError(
            f"the folder is not empty: {there[0]!r} is no export's",
            where=str(target),
            fix="name another folder",
        )


def _check_left(filling: Path) -> None:
    """Raise ConfigError if the folder to fill holds what no export has left there."""
    if filling.is_symlink() or (filling.exists() and not filling.is_dir()):
        there = [filling.name]
    else:
        there = sorted(os.listdir(filling)) if filling.exists() else []
    if there and _LOCK not in there:
        raise ConfigError(
            f"the folder to fill before it gets its name is not empty: {there[0]!r} is no export's",
            where=str(filling),
            fix="move it away, or name another folder",
        )


def _summary(target: Path) -> None:
    """Raise ConfigError if the summary is not one that an export has written: files of others are
    not deleted."""
    try:
        told = json.loads((target / SUMMARY).read_text())
        assert isinstance(told["format"], str)
        assert isinstance(told["of"], str)
    except (ValueError, KeyError, TypeError, AssertionError, OSError):
        raise ConfigError(
            f"its {SUMMARY} is no export's", where=str(target), fix="name another folder"
        ) from None


def _replace(target: Path, filling: Path) -> None:
    if not target.exists():
        os.rename(filling, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    os.rename(target, aside / target.name)
    os.rename(filling, target)
    shutil.rmtree(aside, ignore_errors=True)


def _empty(filling: Path) -> None:
    for entry in os.scandir(filling):
        if entry.name == _LOCK:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


@contextmanager
def _locked(filling: Path) -> Iterator[None]:
    with open(filling / _LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "another export is writing there", where=str(filling), fix="wait for it"
            ) from None
        yield


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = {
            13: "name a folder that you may write",
            28: "free disk space and export again",
            30: "name a folder that can be written",
        }.get(error.errno or 0, "name another folder")
        raise StorageError(
            error.strerror or str(error), where=error.filename or str(target), fix=fix
        ) from error
