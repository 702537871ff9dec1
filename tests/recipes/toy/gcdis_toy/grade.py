"""grade: how many guesses are right?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gcdis_ray.config import StageConfig
from gcdis_ray.stages.objective import Objective, Reading
from gcdis_ray.store.artifacts import Artifact, Size
from gcdis_ray.store.members import Inputs, document, sealed

if TYPE_CHECKING:
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView

ID = "toy_grade"
VERSION = 1
TAKES = (sealed("answers"), "guesses")
GIVES = (document("metrics"),)
SEEDED = False


class Config(StageConfig):
    pass


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    return Size(0, 100)


def run(inputs: Inputs, config: Config, work) -> None:
    truth, guesses = inputs.table("answers").read(), inputs.table("guesses").read()
    pairs = zip(truth["is_biased"].to_pylist(), guesses["is_biased"].to_pylist(), strict=True)
    right = [true == guessed for true, guessed in pairs]
    work.write_json("metrics", {"coins": len(right), "right": {"share": sum(right) / len(right)}})


def summary(artifact: Artifact) -> list[str]:
    metrics = artifact.json("metrics")
    return [f"guessed right {metrics['right']['share']:.2f} of {metrics['coins']} coins"]


def warning(artifact: Artifact) -> str | None:
    return "few coins" if artifact.json("metrics")["coins"] < 10 else None


def objectives() -> Sequence[Objective]:
    def read(artifact: Artifact) -> Reading:
        return Reading(artifact.json("metrics")["right"]["share"])

    return (Objective("right", "max", "share of right guesses", read=read),)


def sections(view: RunView) -> Sequence[Section]:
    from markupsafe import Markup

    from gcdis_ray.report.section import Section

    metrics = view.json("metrics")
    if metrics is None:
        return ()
    share = f"{metrics['right']['share']:.2f}"
    return (Section("coins", "Coins", Markup("<p>guessed right: {}</p>").format(share)),)
