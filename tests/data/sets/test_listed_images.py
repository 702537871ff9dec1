"""How often the files of a data set are opened: once for what a command asks for several times."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import official_files as official
import pytest
import yaml
from coco_folder import folder_config, make_coco_folder, write_json

from gcdis_ray.cli import main
from gcdis_ray.data.sets import listed_images
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.stages import ground_truth
from gcdis_ray.stages.ingest import Config
from gcdis_ray.store.source import LocalFolder

ONE_FILE = {
    split: {"images": "images", "annotations": "all.json", "part": [low, high]}
    for split, low, high in (("labeled", 0, 0.4), ("unlabeled", 0.4, 0.7), ("validation", 0.7, 1))
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_coco_folder(tmp_path / "data", 24)
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each JSON file was opened."""
    times: Counter[str] = Counter()
    really = LocalFolder.open

    def counted(self: LocalFolder, name: str):
        times[name] += name.endswith(".json")
        return really(self, name)

    monkeypatch.setattr(LocalFolder, "open", counted)
    return times


def _config(root: Path, **changes: Any) -> str:
    path = root.parent / "config.yaml"
    data = folder_config(root, **changes)
    whole = {"recipe": "gcdis", "storage": str(root.parent / "storage"), "stages": {"ingest": data}}
    path.write_text(yaml.safe_dump(whole))
    return str(path)


@pytest.mark.parametrize(
    ("command", "fingerprint", "most"),
    [
        # outline, images, categories; annotations of three sets, each picked on its own
        ("status", "content", 6),
        ("plan", "content", 6),
        ("status", "stat", 0),
        ("plan", "stat", 3),
    ],
)
@pytest.mark.parametrize("lists", [False, True])
def test_opens_of_a_command(
    root: Path, opened: Counter[str], command: str, fingerprint: str, most: int, lists: bool
):
    sets = {} if lists else ONE_FILE
    config = _config(root, fingerprint=fingerprint, **sets)
    assert main([command, config, "--json"]) == 0
    assert opened["all.json"] == most
    assert opened["lists.json"] == (4 if lists and most else 0)  # outline, and a list for each set


def test_opens_for_three_files(root: Path, opened: Counter[str]):
    data = json.loads((root / "all.json").read_text())
    for name, ids in json.loads((root / "lists.json").read_text()).items():
        write_json(
            root / f"{name}.json",
            data
            | {key: [row for row in data[key] if row[field] in ids]
               for key, field in (("images", "id"), ("annotations", "image_id"))},
        )  # fmt: skip
    sets = {
        split: {"images": "images", "annotations": f"{split[0]}.json"}
        for split in ("labeled", "unlabeled", "validation")
    }
    for command, fingerprint, most in (("status", "content", 4), ("plan", "stat", 3)):
        opened.clear()
        listed_images._read.cache_clear()
        assert main([command, _config(root, fingerprint=fingerprint, **sets), "--json"]) == 0
        assert max(opened.values()) <= most


def test_a_run_reads_lvis_lists_of_absent_classes_only_where_there_are_some(
    tmp_path: Path, opened: Counter[str]
):
    official.lvis(tmp_path / "lvis.json", list(range(1, 10)))
    official.coco(tmp_path / "coco.json", list(range(1, 10)))
    for name, more in (("lvis", 2), ("coco", 0)):  # unlabeled and validation
        sets = {
            split: chosen | {"images": ".", "annotations": f"{name}.json"}
            for split, chosen in ONE_FILE.items()
        }
        config = Config(**folder_config(tmp_path, known_classes="all", **sets))
        plan_data(config)
        opened.clear()
        ground_truth.source(config)
        assert opened[f"{name}.json"] == 2 + more


def test_what_changes_is_read_again(root: Path):
    def ids(**changes: Any) -> list[int]:
        found = plan_data(Config(**folder_config(root, **changes)))
        return [image.image_id for image in found.images["unlabeled"]]

    assert ids() == list(range(9, 17))
    lists = json.loads((root / "lists.json").read_text())
    write_json(root / "lists.json", lists | {"u": lists["u"][1:]})
    assert ids() == list(range(10, 17))
    data = json.loads((root / "all.json").read_text())
    data["images"] = [image for image in data["images"] if image["id"] != 10]
    write_json(root / "all.json", data)
    write_json(root / "lists.json", lists | {"u": lists["u"][2:]})
    assert ids() == list(range(11, 17))
    partial = {**folder_config(root)["unlabeled"], "partial": True}
    assert ids(unlabeled=partial) == list(range(11, 17))
    (root / "images/12.jpg").unlink()  # folders of images are looked at every time
    assert ids(unlabeled=partial) == [11, *range(13, 17)]


def test_fingerprints_stay_what_they_were(tmp_path: Path):
    """Another one makes every artifact anew."""
    make_coco_folder(tmp_path / "coco", 12)
    (tmp_path / "lvis").mkdir()
    official.lvis(tmp_path / "lvis/all.json", list(range(1, 10)))
    sets = {split: chosen | {"images": "."} for split, chosen in ONE_FILE.items()}
    for name, changes, digest in (
        ("coco", {}, "7b64bdbae9b2b347"),
        ("lvis", {"known_classes": "all", **sets}, "c9a364c5d2465904"),
    ):
        found = ground_truth.source(Config(**folder_config(tmp_path / name, **changes)))
        assert found.startswith(digest)


def test_one_set_of_data_is_kept(root: Path):
    for changes in ({}, ONE_FILE, {}):
        plan_data(Config(**folder_config(root, **changes)))
    assert listed_images._read.cache_info().currsize == 1


def test_lists_of_voc_are_read_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their images' sizes are in files that no config names."""
    config = Config(**folder_config(tmp_path, labeled={"images": "a", "annotations": "b/l.txt"}))
    assert listed_images._states(LocalFolder(str(tmp_path)), config) is None
