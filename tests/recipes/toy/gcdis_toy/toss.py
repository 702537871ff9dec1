"""toss: coins, each thrown some times."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Inputs, table
from gcdis_ray.store.schemas import schema

TOSSES = schema(coin=pa.int64(), heads=pa.int64(), throws=pa.int64())

ID = "toy_toss"
VERSION = 1
TAKES: tuple[str, ...] = ()
GIVES = (table("tosses", TOSSES),)
SEEDED = True
COINS_PER_SHARD = 5


class Config(StageConfig):
    coins: int = Field(20, ge=5, le=1000)
    throws: int = Field(50, ge=1, le=10_000, description="of each coin")


def bias(coin: int) -> float:
    """The truth: every third coin comes up heads more often."""
    return 0.8 if coin % 3 == 0 else 0.5


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    return Size(config.coins, 24 * config.coins)


def run(inputs: Inputs, config: Config, work) -> None:
    shards = [{"first": n} for n in range(0, config.coins, COINS_PER_SHARD)]
    work.map_shards(Toss(config.throws, work.seed), [], gives=("tosses",), args=shards)


@dataclass(frozen=True)
class Toss:
    throws: int
    seed: int

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        def toss(index: int, *, first: int) -> Mapping[str, pa.Table]:
            rows = []
            for coin in range(first, first + COINS_PER_SHARD):
                rng = random.Random(f"{self.seed} {coin}")
                heads = sum(rng.random() < bias(coin) for _ in range(self.throws))
                rows.append({"coin": coin, "heads": heads, "throws": self.throws})
            return {"tosses": pa.Table.from_pylist(rows, TOSSES)}

        return toss
