"""From a folder to a config file: looks, chooses, writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.run.graph import make_config
from gcdis_ray.starting.choices import compute, discovery_stages, segmenting_stages, storing
from gcdis_ray.starting.config_text import Chosen, config_text
from gcdis_ray.starting.contents import Contents
from gcdis_ray.starting.labels import Labels, read_labels
from gcdis_ray.starting.layouts import Layout, find_layout
from gcdis_ray.starting.machine import Machine
from gcdis_ray.starting.results import unlabeled_masks
from gcdis_ray.store.source import open_source
from gcdis_ray.training.plan import Show
from gcdis_ray.words import counted, some

_MOST_NAMED = 5
_DIVISIONS = 10  # of the images, that are tried


@dataclass(frozen=True)
class Start:
    """A config for a folder, not yet written.

    Args:
        name: of the run.
        text: of the config file.
        found: what was seen and chosen, in lines for people.
    """

    name: str
    text: str
    found: list[str]

    def write(self, path: Path, force: bool) -> None:
        """Raises ConfigError: the file is there already, or cannot be written."""
        if path.exists() and not force:
            raise ConfigError("exists", where=str(path), fix="choose another --out, or --force")
        try:
            path.write_text(self.text)
        except OSError as error:
            raise ConfigError(error.strerror or str(error), where=str(path)) from error


def start(uri: str, machine: Machine | None = None, show: Show = lambda progress: None) -> Start:
    """The config that fits a folder. Writes nothing, asks nothing.

    Args:
        uri: a folder or ``s3://bucket/prefix``.
        machine: it is to run on; None: this one.
        show: how many annotations have been looked through.

    Raises:
        DataError: no layout that is known; files that do not fit together.
    """
    machine = machine or Machine.here()
    folder = open_source(uri, where="FOLDER")
    contents = Contents.read(folder)
    layout, labels = _divided(folder.uri, find_layout(contents, predicts=False), show)
    if labels.are_images:
        recipe, stages = "discovery", discovery_stages()
    else:
        layout, labels = _divided(folder.uri, find_layout(contents, predicts=True), show)
        config = _data(folder.uri, layout)
        masks = unlabeled_masks(contents, config)
        recipe = "gcdis"
        stages = segmenting_stages(labels, _shorter_side(config), machine, masks)
    found = _found(layout, labels, recipe)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(folder.uri).name).strip("._-")[:64]
    name = name or "run"
    tree = {
        "name": name,
        "recipe": Chosen(recipe, found[-1]),
        "seed": 0,
        "storage": f"runs/{name}",
        "compute": compute(machine),
        "stages": {"ingest": _ingest(folder.uri, layout, labels), **stages},
    }
    head = "\n".join(["Written by gcdis init, to be changed at will. What it saw:", *found[:-1]])
    text = config_text(head, tree)
    make_config(yaml.safe_load(text), where=name)  # a mistake of ours is found here
    return Start(name, text, found)


def _divided(root: str, layout: Layout, show: Show) -> tuple[Layout, Labels]:
    """The layout with what its labeled images show. Where they are a part of all images, and known
    classes are listed, it is the first of some divisions that leaves fewest of these without an
    object.

    Raises:
        DataError: no labeled image shows an object of a known class.
    """
    best = layout, read_labels(_data(root, layout), show)
    if "part" in layout.sets["labeled"] and layout.known != "all":
        for seed in range(1, _DIVISIONS):
            if not best[1].hidden:
                break
            other = layout.divided_by(seed)
            labels = read_labels(_data(root, other), show)
            best = min(best, (other, labels), key=lambda found: len(found[1].hidden))
    if not best[1].shown:
        raise DataError(
            "no labeled image shows an object of a known class",
            where=root,
            fix="check which images are labeled, and which classes are known",
        )
    return best


def _data(root: str, layout: Layout) -> DataConfig:
    return DataConfig.model_validate({"root": root, **layout.sets, "known_classes": layout.known})


def _ingest(root: str, layout: Layout, labels: Labels) -> dict[str, Any]:
    def chosen(key: str, value: Any) -> Any:
        return Chosen(value, layout.notes[key]) if layout.notes.get(key) else value

    known, why = layout.known, layout.notes.get("known", "")
    if labels.hidden:
        names = [c.name for c in labels.shown]
        twice = len(set(names)) < len(names)
        known = [c.category_id for c in labels.shown] if twice else names
        absent = counted(len(labels.hidden), "class", "classes")
        why += f"; without {absent} that no labeled image shows"
    return {
        "root": root,
        **{split: chosen(split, dict(value)) for split, value in layout.sets.items()},
        "known_classes": Chosen(known, why),
        **storing(labels),
    }


def _found(layout: Layout, labels: Labels, recipe: str) -> list[str]:
    """What was seen; last, why that recipe."""
    images = ", ".join(f"{count:,} {split}" for split, count in labels.num_images.items())
    lines = [layout.what, f"images: {images}"]
    lines.append(
        f"labeled objects of known classes: {labels.objects:,}, of "
        f"{counted(len(labels.shown), 'class', 'classes')}, {labels.masks:,} with a mask, "
        f"an image shows {labels.most_per_image} objects at most"
    )
    if labels.hidden:
        names = some([c.name for c in labels.hidden], _MOST_NAMED)
        lines.append(f"known classes that no labeled image shows: {names}")
    if recipe == "discovery":
        why = "one object an image: the image is the object. To find objects in images: gcdis"
    else:
        why = "several objects in an image: they are found, sorted, and a segmenter learns them"
    return [*lines, why]


def _shorter_side(config: DataConfig) -> int | None:
    """Of the middle one of the labeled images, in pixels; None where only files tell sizes."""
    sizes = plan_data(config).images["labeled"].size_px_N2.min(axis=1)
    return int(np.median(sizes)) if len(sizes) and sizes.min() > 0 else None
