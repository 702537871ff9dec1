"""embed of a run that continues another one: where does each new crop lie?

The earlier run's backbone makes it a vector, with the weights that were stored then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gcdis_ray.config import StageConfig
from gcdis_ray.stages import embed
from gcdis_ray.stages.embed import Config, EmbedShards
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Inputs, optional, table
from gcdis_ray.store.schemas import EMBEDDINGS

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView
    from gcdis_ray.runtime.base import Work

__all__ = ["Config"]

ID = "embed_kept"
VERSION = 1
TAKES = ("crops", "embed_spec", optional("backbone"))
GIVES = (table("embeddings", EMBEDDINGS),)
SEEDED = False
_DIMENSIONS = 500  # about

workload = embed.workload


def sections(view: RunView) -> Sequence[Section]:
    """What the weights of the backbone may know already."""
    from gcdis_ray.report.embedding_section import embedding_section

    return [embedding_section(view)]


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    """The backbone is taken over: there is no file to look at."""


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """One vector a crop."""
    crops = inputs["crops"]
    return Size(crops.rows, 4 * crops.rows * _DIMENSIONS, crops.bytes)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``embeddings``."""
    weights = inputs.tensor_file("backbone") if inputs.has("backbone") else None
    task = EmbedShards(inputs.json("embed_spec"), weights)
    work.map_shards(task, [inputs.table("crops")], gives=("embeddings",))
