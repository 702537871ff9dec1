"""Data of ``benchmarks/ablation.py``: COCO folders of long-tailed objects with their true masks.

Digit scenes are drawn here. Photographs are yours: their licences forbid that they are shipped, so
a folder names them (``caltech101-crops`` and ``coco-subset``, each with a README of their own), and
only lists of them are written.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gcdis_ray.backbones.weights_file import file_sha256
from gcdis_ray.data.samples.digits import KNOWN_DIGITS, write_scenes

Record = dict[str, Any]
SPLITS = ("labeled", "unlabeled", "validation")
WEIGHTS = "backbone-mobilenetv2/mobilenet_v2_1.0_imagenet_int8.npz"
MOBILENET = "mobilenetv2_100"
ROOT = Path(__file__).resolve().parents[1]


class ImageSet(NamedTuple):
    """One set of images under test.

    Args:
        config: the config it starts from.
        overrides: of that config.
        num_novel: novel classes among the unlabeled objects: the count is given, as in the paper.
    """

    config: Path
    overrides: list[str]
    num_novel: int


class Split(NamedTuple):
    """Images and objects of a data set, divided; ``known`` are category ids."""

    images: Mapping[str, Sequence[Record]]
    annotations: Iterable[Record]
    categories: Sequence[Record]
    known: Sequence[int]


def digits(folder: Path) -> ImageSet:
    """Digit scenes: 0 to 4 known, 5 to 9 novel, the most frequent digit four times the rarest."""
    scenes = folder / "scenes"
    write_scenes(scenes)
    unlabeled = json.loads((scenes / "annotations/unlabeled.json").read_text())
    found = {a["category_id"] for a in unlabeled["annotations"]}
    _write(folder / "masks.json", _results(unlabeled["annotations"]))
    config = ROOT / "configs/quickstart.yaml"
    num_novel = len(found - {digit + 1 for digit in KNOWN_DIGITS})
    return ImageSet(config, [f"stages.ingest.root={scenes}"], num_novel)


def caltech(folder: Path, data: Path, backbone: str = MOBILENET) -> ImageSet:
    """Caltech-101 subset: one object an image, class sizes 15 to 3, every other class known.

    There are no masks: the whole image is the object. Half of a known class is labeled.
    """
    source = data / "caltech101-crops"
    labels = json.loads((source / "labels.json").read_text())
    names = [entry["name"] for entry in labels["classes"]]
    ids = {name: n + 1 for n, name in enumerate(names)}
    known = sorted(ids[name] for name in names[::2])  # classes are listed from frequent to rare
    images: dict[str, list[Record]] = {split: [] for split in SPLITS}
    annotations, seen = [], defaultdict(int)
    for number, image in enumerate(labels["images"]):
        category, width, height = ids[image["label"]], image["width"], image["height"]
        seen[category] += 1
        labeled = category in known and seen[category] % 2 == 1
        # the pipeline wants validation images; nothing is measured on these two
        split = "validation" if number in (1, 3) else "labeled" if labeled else "unlabeled"
        images[split].append(
            dict(id=number + 1, file_name=image["file_name"], height=height, width=width)
        )
        corners = [0, 0, width, 0, width, height, 0, height]
        annotations.append(
            dict(
                id=number + 1, image_id=number + 1, category_id=category, iscrowd=0,
                bbox=[0, 0, width, height], area=width * height, segmentation=[corners],
            )
        )  # fmt: skip
    categories = [dict(id=ids[name], name=name) for name in names]
    split = Split(images, annotations, categories, known)
    return _folder(folder, source, split, _photographs(data, backbone))


def coco(folder: Path, data: Path, backbone: str = MOBILENET) -> ImageSet:
    """COCO subset: the 20 classes of VOC known, 60 novel, sizes 686 to 2; crowds left out."""
    source = data / "coco-subset"
    content = json.loads((source / "instances.json").read_text())
    known = json.loads((source / "splits.json").read_text())["known_voc20_category_ids"]
    order = np.random.default_rng(0).permutation(len(content["images"]))
    ends = round(0.4 * len(order)), len(order) - 4
    parts = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]
    images = {
        split: [content["images"][n] for n in sorted(part)]
        for split, part in zip(SPLITS, parts, strict=True)
    }
    annotations = [a for a in content["annotations"] if not a["iscrowd"]]
    split = Split(images, annotations, content["categories"], known)
    return _folder(folder, source, split, _photographs(data, backbone))


def _photographs(data: Path, backbone: str) -> list[str]:
    """Frozen embeddings of a pretrained net."""
    weights = ["stages.embed.weights=package"]
    if backbone == MOBILENET:
        weights = [
            f"stages.embed.weights={data / WEIGHTS}",
            f"stages.embed.sha256='{file_sha256(data / WEIGHTS)}'",
        ]
    return [f"stages.embed.backbone={backbone}", *weights, "stages.embed.input_px=224"]


def _folder(folder: Path, source: Path, split: Split, embed: list[str]) -> ImageSet:
    """Write annotation files beside a link to the images."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "images"
    if not link.is_symlink():
        link.symlink_to((source / "images").resolve(), target_is_directory=True)
    objects: dict[str, list[Record]] = {}
    for name in SPLITS:
        ids = {image["id"] for image in split.images[name]}
        objects[name] = [a for a in split.annotations if a["image_id"] in ids]
        content = dict(
            images=split.images[name], annotations=objects[name], categories=split.categories
        )
        _write(folder / f"{name}.json", content)
    _write(folder / "masks.json", _results(objects["unlabeled"]))
    told = {a["category_id"] for a in objects["labeled"]}
    known = [category for category in split.known if category in told]
    novel = {a["category_id"] for a in objects["unlabeled"]} - set(known)
    sets = [f"stages.ingest.{name}={{images: images, annotations: {name}.json}}" for name in SPLITS]
    ours = [f"stages.ingest.root={folder}", f"stages.ingest.known_classes={known}", *sets]
    config = ROOT / "configs/coco_folder.yaml"
    return ImageSet(config, ours + embed, len(novel))


def _results(annotations: Iterable[Record]) -> list[Record]:
    """True masks as if a proposer had found them."""
    return [
        dict(image_id=a["image_id"], segmentation=a["segmentation"], score=1.0) for a in annotations
    ]


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))
