"""secret: which coins are biased. Sealed."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from gcdis_ray.store.artifacts import Size
from gcdis_ray.store.members import Inputs, table
from gcdis_ray.store.schemas import schema
from gcdis_toy.toss import COINS_PER_SHARD, Config, bias

__all__ = ["Config"]

ANSWERS = schema(coin=pa.int64(), is_biased=pa.bool_())

ID = "toy_secret"
VERSION = 1
TAKES: tuple[str, ...] = ()
GIVES = (table("answers", ANSWERS, sealed=True),)
SEEDED = False


def source(config: Config, show: object = None) -> str:
    return str([bias(coin) for coin in range(config.coins)])


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    return Size(config.coins, 9 * config.coins)


def run(inputs: Inputs, config: Config, work) -> None:
    writer = work.writer("answers")
    for first in range(0, config.coins, COINS_PER_SHARD):
        rows = [
            {"coin": coin, "is_biased": bias(coin) != 0.5}
            for coin in range(first, first + COINS_PER_SHARD)
        ]
        writer.add(pa.Table.from_pylist(rows, ANSWERS))
    writer.close()
