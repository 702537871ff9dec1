"""What a config for a folder says beyond its data, and why: by its images, its labels, the machine.

What is not chosen here is as in the shipped configs, which lie here by a link.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

from gcdis_ray.backbones.packages import PACKAGES
from gcdis_ray.errors import ConfigError
from gcdis_ray.starting.config_text import Chosen
from gcdis_ray.starting.labels import Labels
from gcdis_ray.starting.machine import Machine
from gcdis_ray.words import counted

BACKBONE = "tf_efficientnet_lite0"  # has a weights package, and is small enough for two cores
MAX_WORKERS = 2  # a step is computed in two parts
MAX_CORES = 16
MANY_IMAGES = 20_000  # copies of so many image files are not wanted twice
_PER_SHARD = ((500, 16), (5_000, 32), (MANY_IMAGES, 64))  # images in all -> in a shard
_SIZED_FOR = 125  # labeled images, and as many unlabeled ones: the shipped config's steps
_MOST_STEPS = 4  # times the shipped ones, without a GPU
_GPU_PASSES, _GPU_MOST_STEPS = 24, 90_000  # over the images
_SIDES_PX = {False: (256, 416), True: (800, 1333)}  # shorter and longer side; True: on a GPU


def compute(machine: Machine) -> dict[str, Any]:
    """Section ``compute``."""
    if machine.gpus:
        workers = min(machine.gpus, MAX_WORKERS)
        why = f"of {counted(machine.gpus, 'GPU')}: a step is computed in two parts"
        return {
            "runtime": "ray",
            "workers": Chosen(workers, why),
            "gpus_per_worker": 1,
            "data_workers": Chosen(
                min(machine.cores, MAX_CORES), "of cores; where networks run, four share a GPU"
            ),
        }
    workers = min(machine.cores, MAX_WORKERS)
    return {
        "runtime": Chosen("ray", "or local: one process, for a debugger"),
        "workers": Chosen(workers, f"of {counted(machine.cores, 'core')}, no GPU"),
        "data_workers": min(machine.cores, MAX_CORES),
    }


def storing(labels: Labels) -> dict[str, Any]:
    """How images are kept, by their number."""
    total = sum(labels.num_images.values())
    per_shard = next((size for most, size in _PER_SHARD if total <= most), 256)
    chosen: dict[str, Any] = {
        "images_per_shard": Chosen(per_shard, f"{counted(total, 'image')} in all")
    }
    if total > MANY_IMAGES:
        chosen["store"] = Chosen("uri", "images stay where they are: the folder must not change")
        chosen["fingerprint"] = Chosen("stat", "changes are noticed by size and time of files")
    return chosen


def embedding() -> dict[str, Any]:
    """Section ``embed``: pretrained, if the weights package is installed."""
    if (missing := _not_installed()) is not None:
        why = f"weak on photographs. Better: {BACKBONE}, weights: package. {missing}"
        return {"backbone": Chosen("wavelet", why), "input_px": 64}
    why = "ImageNet's, trained with labels: they know many novel classes by name"
    return {"backbone": BACKBONE, "weights": Chosen("package", why)}


def _not_installed() -> str | None:
    """How to get the weights package, unless it is there."""
    try:
        return None if PACKAGES[BACKBONE].path().is_file() else "its file is gone: install it again"
    except ConfigError as error:
        return error.fix


def discovery_stages() -> dict[str, Any]:
    """Stages of recipe discovery after ingest, where every image is an object."""
    stages = _shipped("crops.yaml")
    source = {"source": Chosen("image", "every image is one object")}
    return {**stages, "propose": source, "embed": embedding()}


def segmenting_stages(
    labels: Labels, side_px: int | None, machine: Machine, results: str | None
) -> dict[str, Any]:
    """Stages of recipe gcdis after ingest, where images show several objects.

    Args:
        side_px: shorter side of the middle one of the labeled images, if it is known.
        results: file of masks of unlabeled images.
    """
    stages = _shipped("coco_folder.yaml")
    propose, segment = stages["propose"], stages["segment"]
    detector = _sized(propose["detector"], side_px, machine)
    unlabeled = labels.num_images["unlabeled"]
    total = labels.num_images["labeled"] + unlabeled
    segment["training"]["steps"] = _steps(segment["training"], total, 2 * _SIZED_FOR, machine)
    stages["embed"] = embedding()
    if results is not None:
        why = f"{results} has masks of unlabeled images"
        stages["propose"] = {
            "source": Chosen("external", why), "external": {"results": results}
        }  # fmt: skip
        segment |= {"detector": detector, "init_from_proposer": Chosen(False, "there is none")}
    else:
        why = "a class-agnostic detector learns from labeled objects; masks of your own: external"
        training = propose["training"]
        labeled = labels.num_images["labeled"]
        training["steps"] = _steps(training, labeled, _SIZED_FOR, machine)
        stages["propose"] = {**propose, "source": Chosen("model", why), "detector": detector}
    if not labels.masks:
        why = "labeled objects have no mask: their boxes are taken for it"
        stages["propose"]["box_masks"] = Chosen("rectangle", why)
    return stages


def _shipped(name: str) -> dict[str, Any]:
    """Stages of a shipped config, but for the data."""
    text = files("gcdis_ray.starting").joinpath(name).read_text()
    stages: dict[str, Any] = yaml.safe_load(text)["stages"]
    return {stage: config for stage, config in stages.items() if stage != "ingest"}


def _sized(detector: Mapping[str, Any], side_px: int | None, machine: Machine) -> dict[str, Any]:
    """A detector for images of that size: anchors grow with the images it is given."""
    shorter, longer = _SIDES_PX[machine.gpus > 0]
    low = min(shorter, max(64, side_px or shorter))
    factor = low / detector["min_side_px"]
    if (missing := _not_installed()) is not None:
        why = f"from scratch, which is far worse than {BACKBONE}, weights: package. {missing}"
        scratch = {"backbone": Chosen("small", why), "width": 32, "blocks": [1, 1, 1, 1]}
        pretrained = ("backbone", "weights", "norm", "backbone_lr")
        detector = scratch | {k: v for k, v in detector.items() if k not in pretrained}
    how = "a GPU" if machine.gpus else "cores alone"
    return {
        **detector,
        "min_side_px": Chosen(low, f"images have {side_px or 'unknown'} px; {how}"),
        "max_side_px": round(longer * low / shorter),
        "anchor_sizes_px": [round(size * factor) for size in detector["anchor_sizes_px"]],
        "roi_canonical_px": round(detector["roi_canonical_px"] * factor),
    }


def _steps(training: Mapping[str, Any], images: int, sized_for: int, machine: Machine) -> Chosen:
    """As many passes over images as the shipped config makes, and at least its steps."""
    shipped, batch = training["steps"], training["batch_size"]
    wanted, most = shipped * images / sized_for, _MOST_STEPS * shipped
    if machine.gpus:
        wanted, most = _GPU_PASSES * images / batch, _GPU_MOST_STEPS
    steps = min(max(round(wanted), shipped), most)
    return Chosen(steps, f"{steps * batch / max(images, 1):.3g} passes over {images:,} images")
