"""A proposer that an earlier run trained, as a start for this one: is it there, is it the pinned
one, and of the same build? No torch: ``run`` looks at it before torch is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from gcdis_ray.artifacts import Manifest
from gcdis_ray.config import Closed
from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.models.detector_config import DetectorConfig
from gcdis_ray.models.weights_file import read_pinned

WHERE = "stages.propose.init"
_START = frozenset({"weights", "weights_sha256"})  # where that proposer itself began


class EarlierProposer(Closed):
    """A trained proposer to start from."""

    artifact: str = Field(
        description="folder of the earlier run's artifact, <storage>/propose/<key>, or a copy of it"
    )
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
        """
        folder = Path(self.artifact)
        path, spec = _member(folder, "proposer"), _member(folder, "proposer_spec")
        differ = _differences(_detector_of(spec), detector)
        if differ:
            raise ConfigError(
                f"that proposer has another detector: {'; '.join(differ)[:300]}",
                where=f"{WHERE}.artifact",
                fix="give stages.propose.detector the same settings",
            )
        return read_pinned(path, self.sha256)


def _member(folder: Path, member: str) -> Path:
    """The one file of a member of an artifact."""
    path = folder / "manifest.json"
    try:
        files = Manifest.from_json(path.read_text(), str(path)).files[member]
    except (OSError, UnicodeDecodeError, ArtifactError) as error:
        what = getattr(error, "strerror", None) or "not a manifest"
        raise ConfigError(
            f"no artifact of stage propose in {folder}: {what}",
            where=f"{WHERE}.artifact",
            fix="give the folder <storage>/propose/<key> that 'gcdis status' names; copy it here "
            "if it lies on S3",
        ) from error
    except KeyError:
        raise ConfigError(
            f"the artifact in {folder} holds no {member}",
            where=f"{WHERE}.artifact",
            fix="take that of a run with stages.propose.source: model",
        ) from None
    return folder / files[0].path


def _detector_of(spec: Path) -> DetectorConfig:
    try:
        return DetectorConfig(**json.loads(spec.read_text())["detector"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{spec} does not describe a detector: {str(error).splitlines()[0][:120]}",
            where=f"{WHERE}.artifact",
            fix="copy the whole folder of the artifact",
        ) from error


def _differences(theirs: DetectorConfig, ours: DetectorConfig) -> list[str]:
    one: dict[str, Any] = theirs.model_dump(mode="json", exclude=set(_START))
    other: dict[str, Any] = ours.model_dump(mode="json", exclude=set(_START))
    return [f"{name} {one[name]}, here {other[name]}" for name in one if one[name] != other[name]]
