"""predict: what does the segmenter see in validation images?

It knows no ground truth, so that whatever is made of its predictions (another map from outputs to
classes, other rules) needs no model again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.runtime.base import Work
from gcdis_ray.store.artifacts import Size, Workload
from gcdis_ray.store.members import Inputs, document, optional, table
from gcdis_ray.store.schemas import PREDICTIONS

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

ID = "predict"
VERSION = 1
TAKES = ("images", optional("source"), "segmenter", "segmenter_spec")
GIVES = (table("predictions", PREDICTIONS), document("limits"))
SEEDED = False


class Config(StageConfig):
    """Which predictions are kept."""

    min_score: float = Field(1e-3, ge=0, le=1, description="detections below it are dropped")
    max_per_image: int = Field(
        300,
        ge=1,
        le=10_000,
        description="detections kept per image, the best of all outputs; evaluate scores at most "
        "so many, and with mapping.drop before_topk fills up from them",
    )


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    data = givers.get("images")
    if data is not None and getattr(data, "validation", data) is None:
        raise ConfigError(
            "there are no validation images, and predictions are made of them",
            where="stages.ingest.validation",
            fix="name them, or choose a recipe that predicts nothing",
        )


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Detections of the validation images, a fifth of all. All images are read, and the model."""
    rows = inputs["images"].rows // 5 * min(config.max_per_image, 50)
    read = inputs["images"].image_bytes + inputs["segmenter"].weight_bytes
    return Size(rows, 80 * rows + 5_000, read)


def workload(config: Config, inputs: Mapping[str, Size], made: Size) -> Workload:
    """Validation images."""
    return Workload(rows=inputs["images"].splits.get("validation", 0))


def sections(view: RunView) -> Sequence[Section]:
    """Predictions in their images."""
    from gcdis_ray.report.run_pictures import predicted_pictures

    return predicted_pictures(view)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write table ``predictions`` and JSON ``limits``: the config's."""
    from gcdis_ray.data.images.image_files import ImageFiles
    from gcdis_ray.instances.inference import Detect

    detect = Detect(
        weights=inputs.tensor_file("segmenter"),
        spec=inputs.json("segmenter_spec"),
        split="validation",
        files=ImageFiles.of(inputs),
        gives="predictions",
        min_score=config.min_score,
        max_per_image=config.max_per_image,
    )
    work.map_shards(detect, [inputs.table("images")], gives=("predictions",))
    work.write_json("limits", config.key_fields())
