"""A proposer that an earlier run trained, as a start for this one: is it there, is it the pinned
one, and of the same build? No torch: ``run`` looks at it before torch is imported."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field

from gcdis_ray.backbones.weights_file import check_pinned
from gcdis_ray.config import ENDPOINT, Closed
from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.instances.detector_config import DetectorConfig
from gcdis_ray.store.artifacts import Manifest
from gcdis_ray.store.source import SourceFolder, source_folder

_ARTIFACT = "stages.propose.init.artifact"
_START = frozenset({"weights", "weights_sha256", "download", "backbone_lr"})  # how it was trained


class EarlierProposer(Closed):
    """A trained proposer to start from."""

    artifact: str = Field(
        description="the earlier run's artifact, <storage>/propose/<key>, or a copy of it: a "
        "folder or s3://bucket/prefix"
    )
    endpoint: str | None = Field(None, description=f"of an artifact in a bucket: {ENDPOINT}")
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$",
        description="of its proposer.safetensors; any other file is refused",
    )

    def read(self, detector: DetectorConfig) -> bytes:
        """The weights file.

        Args:
            detector: what this run trains.

        Raises:
            ConfigError: no such artifact, it holds no proposer, another file than the pinned one,
                or a detector with other settings.
            DataError, StorageError: see :func:`gcdis_ray.store.source.source_folder`.
        """
        folder = source_folder(self.artifact, self.endpoint, _ARTIFACT)
        weights, spec = _members(folder, "proposer", "proposer_spec")
        differ = _differences(_detector_of(folder, spec), detector)
        if differ:
            raise ConfigError(
                f"that proposer has another detector: {'; '.join(differ)[:300]}",
                where=_ARTIFACT,
                fix="give stages.propose.detector the same settings",
            )
        data = _read(folder, weights)
        check_pinned(data, self.sha256, f"{folder.uri}/{weights}")
        return data


def _members(folder: SourceFolder, *members: str) -> list[str]:
    """Name of the one file of each of these members of an artifact."""
    try:
        text = folder.read("manifest.json").decode()
        files = Manifest.from_json(text, f"{folder.uri}/manifest.json").files
    except (OSError, UnicodeDecodeError, ArtifactError) as error:
        what = "not a manifest"
        if isinstance(error, OSError):
            what = error.strerror or "no manifest.json in it"
        raise ConfigError(
            f"no artifact of stage propose in {folder.uri}: {what}",
            where=_ARTIFACT,
            fix="give the address <storage>/propose/<key> that 'gcdis status' names",
        ) from error
    for member in members:
        if not files.get(member):
            raise ConfigError(
                f"the artifact in {folder.uri} holds no {member}",
                where=_ARTIFACT,
                fix="take that of a run with stages.propose.source: model",
            )
    return [files[member][0].path for member in members]


def _read(folder: SourceFolder, name: str) -> bytes:
    try:
        return folder.read(name)
    except OSError as error:
        raise ConfigError(
            f"{folder.uri}/{name}: {error.strerror or 'it is gone'}",
            where=_ARTIFACT,
            fix="copy the whole folder of the artifact",
        ) from error


def _detector_of(folder: SourceFolder, spec: str) -> DetectorConfig:
    try:
        return DetectorConfig(**json.loads(_read(folder, spec))["detector"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder.uri}/{spec} does not describe a detector: {str(error).splitlines()[0][:120]}",
            where=_ARTIFACT,
            fix="copy the whole folder of the artifact",
        ) from error


def _differences(theirs: DetectorConfig, ours: DetectorConfig) -> list[str]:
    one: dict[str, Any] = theirs.model_dump(mode="json", exclude=set(_START))
    other: dict[str, Any] = ours.model_dump(mode="json", exclude=set(_START))
    return [f"{name} {one[name]}, here {other[name]}" for name in one if one[name] != other[name]]
