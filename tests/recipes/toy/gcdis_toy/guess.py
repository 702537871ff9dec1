"""guess: which coins look biased?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.stages.objective import Objective, Reading
from gcdis_ray.store.artifacts import Artifact, Size
from gcdis_ray.store.members import Inputs, document, table
from gcdis_ray.store.schemas import HISTORY, schema

GUESSES = schema(coin=pa.int64(), is_biased=pa.bool_(), doubt=pa.float64())

ID = "toy_guess"
VERSION = 1
TAKES = ("tosses",)
GIVES = (table("guesses", GUESSES), table("history", HISTORY), document("clarity"))
SEEDED = False


class Config(StageConfig):
    threshold: float = Field(0.65, ge=0, le=1, description="share of heads that looks biased")
    notes: str | None = Field(None, description="a file that has to be there")


def check(config: Config, givers: Mapping[str, StageConfig]) -> None:
    if config.notes and not Path(config.notes).is_file():
        raise ConfigError("no such file", where="stages.opinion.notes", fix=f"write {config.notes}")
    assert type(givers["tosses"]).__module__ == "gcdis_toy.toss"


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    return Size(inputs["tosses"].rows, inputs["tosses"].bytes)


def run(inputs: Inputs, config: Config, work) -> None:
    guess = Guess(config.threshold)
    work.map_shards(guess, [inputs.table("tosses")], gives=("guesses",))
    doubts = work.table("guesses").read(["doubt"])["doubt"].to_pylist()
    rows = [{"step": n + 1, "name": "doubt", "value": doubt} for n, doubt in enumerate(doubts)]
    work.write_table("history", pa.Table.from_pylist(rows, HISTORY))
    work.write_json("clarity", {"mean_distance": 1 - sum(doubts) / len(doubts)})


def objectives() -> Sequence[Objective]:
    return (Objective("clarity", "max", "mean distance from the threshold", read=_clarity),)


def _clarity(artifact: Artifact) -> Reading:
    return Reading(artifact.json("clarity")["mean_distance"])


@dataclass(frozen=True)
class Guess:
    threshold: float

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        def guess(index: int, tosses: pa.Table) -> Mapping[str, pa.Table]:
            shares = [row["heads"] / row["throws"] for row in tosses.to_pylist()]
            columns = {
                "coin": tosses["coin"],
                "is_biased": [share >= self.threshold for share in shares],
                "doubt": [1 - abs(share - self.threshold) for share in shares],
            }
            return {"guesses": pa.table(columns, schema=GUESSES)}

        return guess
