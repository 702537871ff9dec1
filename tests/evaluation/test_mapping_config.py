"""What a mapping is called, and in what words."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gcdis_ray.errors import ConfigError
from gcdis_ray.evaluation.mapping_config import MappingConfig
from gcdis_ray.evaluation.scored_images import Rules
from gcdis_ray.stages import evaluate


def test_published_protocols_have_names():
    rncdl = MappingConfig(scope="all", source="gt_crops", drop="after_topk")
    assert rncdl.name == "RNCDL"
    assert rncdl.words(0.5, 300, 300).startswith("as in RNCDL: one Hungarian assignment over all")
    assert MappingConfig(scope="all", source="gt_crops", drop="before_topk").name is None
    assert MappingConfig(scope="novel_only", source="gt_crops").name == "PANDAS"
    assert MappingConfig.model_validate({}).name == "default"


def test_words_tell_every_choice_apart():
    texts = {}
    for source, scope, drop in itertools.product(
        ("train_gt", "split_val", "gt_crops", "detections"),
        ("novel_only", "all"),
        ("before_topk", "after_topk"),
    ):
        config = MappingConfig(source=source, scope=scope, drop=drop)  # pyright: ignore[reportArgumentType]
        text = config.words(0.5, 100, 300)
        leaks = source in ("gt_crops", "detections")
        assert config.leak_free is not leaks
        assert ("upper bound" in text) is leaks
        texts[source, scope, drop] = text
    assert len(set(texts.values())) == 16


def test_enough_detections_must_have_been_kept():
    def limits(rules: Rules = "coco", kept: int = 300, **values: Any) -> tuple[int, int]:
        terms = evaluate.Config.model_validate(values).terms(rules, kept)
        return terms.best, terms.kept

    before = {"mapping": {"drop": "before_topk"}, "max_per_image": 50}
    assert (limits(), limits("lvis")) == ((100, 300), (300, 300))
    assert limits(kept=51, **before) == (50, 51)
    with pytest.raises(ConfigError, match=r"predict.max_per_image: 50 .* filled up .*\n.*150"):
        limits(kept=50, **before)
    with pytest.raises(ConfigError, match=r"predict.max_per_image: 299 .* 300 may be scored"):
        limits(kept=299)
