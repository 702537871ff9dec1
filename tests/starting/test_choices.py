"""What a config says by the machine and the number of images; its text."""

from __future__ import annotations

from unittest import mock

import pytest
import yaml
from small_run import ROOT

from gcdis_ray.data.formats.records import CategoryRecord
from gcdis_ray.errors import ConfigError
from gcdis_ray.starting import choices
from gcdis_ray.starting.config_text import Chosen, config_text
from gcdis_ray.starting.labels import Labels
from gcdis_ray.starting.machine import Machine

TWO_CORES, GPUS = Machine(2, 0), Machine(32, 4)


def labels(labeled: int = 100, unlabeled: int = 300, masks: int = 5) -> Labels:
    shown = (CategoryRecord(1, "cat"),)
    return Labels({"labeled": labeled, "unlabeled": unlabeled}, 9, masks, 3, shown, (), 0)


def plain(tree):
    """Without the reasons."""
    return yaml.safe_load(config_text("", tree))


@pytest.mark.parametrize("name", ["coco_folder", "crops"])
def test_what_nothing_speaks_against_is_as_shipped(name: str):
    shipped = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())["stages"]
    del shipped["ingest"]
    made = {
        "coco_folder": lambda: choices.segmenting_stages(labels(125, 125), 427, TWO_CORES, None),
        "crops": choices.discovery_stages,
    }
    assert plain(made[name]()) == shipped


def test_sides_and_steps_follow_images_and_machine():
    few = plain(choices.segmenting_stages(labels(), 100, TWO_CORES, None))
    detector = few["propose"]["detector"]
    assert (detector["min_side_px"], detector["max_side_px"]) == (100, 162)
    assert detector["anchor_sizes_px"] == [9, 19, 38, 75]
    many = plain(choices.segmenting_stages(labels(5000, 5000), None, GPUS, None))
    detector = many["propose"]["detector"]
    assert (detector["min_side_px"], detector["max_side_px"]) == (800, 1333)
    assert few["propose"]["training"]["steps"] < many["propose"]["training"]["steps"]
    assert few["segment"]["training"]["steps"] < many["segment"]["training"]["steps"]


def test_masks_from_a_file_leave_no_proposer_to_start_from():
    made = plain(choices.segmenting_stages(labels(masks=0), None, TWO_CORES, "m.json"))
    assert made["propose"] == {
        "source": "external", "external": {"results": "m.json"}, "box_masks": "rectangle",
    }  # fmt: skip
    assert made["segment"]["init_from_proposer"] is False
    assert made["segment"]["detector"]["fpn_channels"] == 64


def test_workers():
    assert plain(choices.compute(Machine(1, 0)))["workers"] == 1
    assert plain(choices.compute(TWO_CORES)) == {"runtime": "ray", "workers": 2, "data_workers": 2}
    found = plain(choices.compute(GPUS))
    assert (found["workers"], found["gpus_per_worker"], found["data_workers"]) == (2, 1, 16)


def test_many_images_stay_where_they_are():
    assert plain(choices.storing(labels())) == {"images_per_shard": 16}
    assert plain(choices.storing(labels(30_000))) == {
        "images_per_shard": 256, "store": "uri", "fingerprint": "stat",
    }  # fmt: skip


def test_without_the_weights_package():
    gone = mock.patch.object(
        type(choices.PACKAGES[choices.BACKBONE]),
        "path",
        side_effect=ConfigError("not installed", fix="install it"),
    )
    with gone:
        assert plain(choices.embedding())["backbone"] == "wavelet"
        made = plain(choices.segmenting_stages(labels(), None, TWO_CORES, None))
        text = config_text("", {"embed": choices.embedding()})
    assert made["propose"]["detector"]["backbone"] == "small"
    assert "weights" not in made["propose"]["detector"]
    assert "install it" in text


def test_reasons_are_comments():
    tree = {
        "a": Chosen(1, "one"),
        "b": {"c": Chosen({"d": "x: y", "e": [1, 2]}, "short"), "f": {"g": 1, "h": Chosen(2, "k")}},
        "long": Chosen(3, "w " * 60),
        "bad": Chosen("v", "two\nlines: 1\u2028more: 2"),
        "none": None,
    }
    text = config_text("head\n\nmore: 1", tree)
    assert yaml.safe_load(text) == {
        "a": 1,
        "b": {"c": {"d": "x: y", "e": [1, 2]}, "f": {"g": 1, "h": 2}},
        "long": 3,
        "bad": "v",
        "none": None,
    }
    lines = text.splitlines()
    assert lines[:3] == ["# head", "#", "# more: 1"]
    assert "a: 1  # one" in lines
    assert "  c: {d: 'x: y', e: [1, 2]}  # short" in lines
    assert all(len(line) <= 130 for line in lines)
    wide = {"s": {"c": Chosen({"name": "n" * 60, "other": "o" * 60}, "why")}}
    assert yaml.safe_load(config_text("", wide)) == {"s": {"c": wide["s"]["c"].value}}
    assert "  # why" in config_text("", wide).splitlines()


@pytest.mark.parametrize("text", ["a: b", "#x", "- y", "", "yes", "1"])
def test_any_text_is_quoted_as_it_must_be(text: str):
    assert yaml.safe_load(config_text("", {"k": Chosen(text, text)})) == {"k": text}
