"""What travels with a job: a folder as Ray packs it, looked through before it is sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gcdis_ray.errors import ConfigError
from gcdis_ray.runtime.ray_jobs import MAX_PACKAGE_BYTES, pack, packed_files
from gcdis_ray.submitting.secrets import secret_by_look, secret_by_name
from gcdis_ray.words import counted, size, some


@dataclass(frozen=True)
class Package:
    """A folder in a zip file, without what its ``.gitignore`` and ``.rayignore`` leave out."""

    file: Path
    names: frozenset[str]  # of files, relative to the folder
    num_bytes: int  # of the zip file

    def __str__(self) -> str:
        return f"{counted(len(self.names), 'file')}, {size(self.num_bytes)}"


def make_package(folder: Path, file: Path) -> Package:
    """Packs ``folder`` into the zip file ``file``.

    Raises:
        ConfigError: it is larger than a cluster takes, or holds what looks like a secret.
    """
    _refuse_large(folder, packed_files(folder))  # before a disk is filled with it
    pack(folder, file)
    with zipfile.ZipFile(file) as content:
        entries = [entry for entry in content.infolist() if not entry.is_dir()]
        if secrets := list(_secrets(content, entries)):
            raise ConfigError(
                f"would send secrets along: {some(secrets, 5, str)}",
                where=str(folder),
                fix="name them in .rayignore; the cluster has credentials of its own",
            )
    num_bytes = file.stat().st_size
    if num_bytes >= MAX_PACKAGE_BYTES:  # names and headers count, too
        _refuse_large(folder, {entry.filename: entry.file_size for entry in entries}, num_bytes)
    return Package(file, frozenset(entry.filename for entry in entries), num_bytes)


def _refuse_large(folder: Path, files: Mapping[str, int], num_bytes: int | None = None) -> None:
    """Args:
    files: bytes by name; Ray packs them as they are.
    num_bytes: of the package; None: what they sum up to.
    """
    num_bytes = sum(files.values()) if num_bytes is None else num_bytes
    if num_bytes < MAX_PACKAGE_BYTES:
        return
    ranked = sorted(files, key=lambda name: -files[name])
    largest = some(ranked, 3, lambda name: f"{name} ({size(files[name])})")
    raise ConfigError(
        f"the package has {size(num_bytes)}, a cluster takes {size(MAX_PACKAGE_BYTES)}; "
        f"largest are {largest}",
        where=str(folder),
        fix="name in .rayignore what a job does not need; data are read from where they lie",
    )


def _secrets(content: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Iterator[str]:
    for entry in entries:
        if secret_by_name(entry.filename):
            yield entry.filename
        elif kind := secret_by_look(content.read(entry)):
            yield f"{entry.filename} ({kind})"
