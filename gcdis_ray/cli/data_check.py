"""``gcdis data check``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from gcdis_ray.cli.configs import config_arguments
from gcdis_ray.cli.telling import json_argument, print_json
from gcdis_ray.errors import ConfigError

if TYPE_CHECKING:
    from gcdis_ray.config import RunConfig
    from gcdis_ray.data.sets.data_config import DataConfig

HELP = "count images, annotations and classes beside the published numbers"
EXAMPLE = "gcdis data check configs/coco_half_lvis.yaml"


def arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    json_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gcdis_ray.data.sets.data_check import check_data
    from gcdis_ray.run.pipeline import load_config
    from gcdis_ray.run.progress import Line

    config, line = load_config(args.config, args.set), Line()
    try:
        report = check_data(_data_config(config), config.name, line.tell)
    finally:
        line.close()
    if args.json:
        print_json(report.as_json())
    else:
        print("\n".join(report.lines()))
    for problem in report.problems:
        print(f"gcdis: {problem}", file=sys.stderr)
    return 2 if report.problems else 0


def _data_config(config: RunConfig) -> DataConfig:
    """The part of a config that says what data set is read."""
    from gcdis_ray.data.sets.data_config import DataConfig

    for name in type(config.stages).model_fields:
        if isinstance(section := getattr(config.stages, name), DataConfig):
            return section
    raise ConfigError(
        f"recipe {config.recipe} has no stage that reads a data set", where="gcdis data check"
    )
