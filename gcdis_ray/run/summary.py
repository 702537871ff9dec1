"""What the stages of a run say at the end of a command: lines for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from gcdis_ray.curating.acts import told
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.stages.stage import offered
from gcdis_ray.store.artifacts import Artifact


def summaries(pipeline: Pipeline) -> list[str]:
    """The lines of every stage that has any, of what is made so far."""
    lines = [line for tell, artifact in _told(pipeline, "summary") for line in tell(artifact)]
    return [*_decided(pipeline), *lines]


def _decided(pipeline: Pipeline) -> list[str]:
    """What people decided of the classes, if anything."""
    words = told(pipeline.acts)
    return [f"{'decided':<22} {words}"] if words else []


def warnings(pipeline: Pipeline) -> list[str]:
    """Why results should not be trusted, by the stages that made them."""
    return [line for tell, artifact in _told(pipeline, "warning") if (line := tell(artifact))]


def _told(pipeline: Pipeline, name: str) -> Iterator[tuple[Callable[[Artifact], Any], Artifact]]:
    for node, artifact in pipeline.artifacts().items():
        if tell := offered(pipeline.nodes[node].stage, name):
            yield tell, artifact
