"""A trained segmenter, wherever it lies: in a run's storage, or in a bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcdis_ray.curating.naming import class_names
from gcdis_ray.errors import ArtifactError
from gcdis_ray.exporting.categories import category_ids
from gcdis_ray.run.opened import OpenedRun
from gcdis_ray.store.storage import Storage


@dataclass(frozen=True)
class SegmentedClass:
    """A class that a segmenter finds.

    Args:
        class_index: contiguous, from 0 on.
        name: given by people, or "novel 1" and so on.
        known: there were labels of it.
        category_id: in COCO files, from 1 on; see
            :func:`~gcdis_ray.exporting.categories.category_ids`.
    """

    class_index: int
    name: str
    known: bool
    category_id: int


@dataclass(frozen=True)
class Trained:
    """A segmenter, and all that it takes to use it.

    Args:
        name: of the run that trained it.
        storage, path, num_bytes, sha256: the file of its weights.
        spec: document ``segmenter_spec``.
        table: rows of its class table, by ``class_index``, with names as the run made them.
        names: of the same classes, as people want to see them.
        limits: what stage predict of its run keeps: ``min_score``, ``max_per_image``.
    """

    name: str
    storage: Storage
    path: str
    num_bytes: int
    sha256: str
    spec: Mapping[str, Any]
    table: Sequence[Mapping[str, Any]]
    names: Sequence[str]
    limits: Mapping[str, Any]

    @property
    def uri(self) -> str:
        """Of the weights."""
        return f"{self.storage.uri}/{self.path}"

    @property
    def classes(self) -> tuple[SegmentedClass, ...]:
        """By ``class_index``."""
        ids = category_ids(self.table)
        return tuple(
            SegmentedClass(row["class_index"], name, row["known"], ids[row["class_index"]])
            for row, name in zip(self.table, self.names, strict=True)
        )

    def read_weights(self) -> bytes:
        """The safetensors file.

        Raises:
            ArtifactError: it is gone, or not the one it should be.
        """
        try:
            data = self.storage.read(self.path)
        except FileNotFoundError:
            raise ArtifactError("file is gone", where=self.uri) from None
        if len(data) != self.num_bytes or hashlib.sha256(data).hexdigest() != self.sha256:
            raise ArtifactError(
                "file is damaged (size or SHA-256 differs)",
                where=self.uri,
                fix="copy it again, or make it again",
            )
        return data


def of_run(run: OpenedRun) -> Trained:
    """The segmenter of a run.

    Raises:
        ConfigError: its recipe has none, or it has not been trained.
        CurationError: people have merged, split or rejected classes since.
    """
    artifact = run.artifact_with("segmenter")
    record = artifact.tensor_file("segmenter").record
    table = artifact.json("segmenter_classes")
    given = class_names(run)
    return Trained(
        name=run.name,
        storage=run.storage,
        path=f"{artifact.manifest.stage}/{artifact.key}/{record.path}",
        num_bytes=record.bytes,
        sha256=record.sha256,
        spec=artifact.json("segmenter_spec"),
        table=table,
        names=[given[row["class_index"]] for row in table],
        limits=_limits(run),
    )


def _limits(run: OpenedRun) -> Mapping[str, Any]:
    """What stage predict of the run keeps, or would keep."""
    if run.has("limits"):
        return run.artifact_with("limits").json("limits")
    from gcdis_ray.stages.predict import Config

    return Config.model_validate({}).key_fields()
