"""What has been published about data sets: counts to hold a folder against, each with its source.

A count that we could read at its source is ``firm``: a folder that differs is another data set. The
others are from memory or second hand; a difference is worth a look and no more. The publishers of
the large files give no hashes; `gcdis data check` prints those of the user's files to compare by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    value: int
    source: str
    firm: bool = True
    tolerance: int = 0

    def fits(self, seen: int) -> bool:
        return abs(seen - self.value) <= self.tolerance

    def __str__(self) -> str:
        spread = f" ± {self.tolerance}" if self.tolerance else ""
        return f"{self.value:,}{spread} ({self.source}{'' if self.firm else '; not verified'})"


_COCO = "cocodataset.org"
_READERS = "read from the file by its users"
_LVIS = "lvisdataset.org"
_VG = "Visual Genome 1.4"
_MEMORY = "commonly quoted"
_LVIS_CATEGORIES = Count(1203, "LVIS API, data of v1")

# annotation file by its official name -> what is counted in it
FILES: Mapping[str, Mapping[str, Count]] = {
    "instances_train2017.json": {
        "images": Count(118_287, _COCO),
        "annotations": Count(860_001, _READERS),
        "categories": Count(80, _COCO),
    },
    "instances_val2017.json": {
        "images": Count(5_000, _COCO),
        "annotations": Count(36_781, _MEMORY, firm=False),
        "categories": Count(80, _COCO),
    },
    "lvis_v1_train.json": {
        "images": Count(100_170, _LVIS),
        "annotations": Count(1_270_141, _MEMORY, firm=False),
        "categories": _LVIS_CATEGORIES,
    },
    "lvis_v1_val.json": {
        "images": Count(19_809, _LVIS),
        "annotations": Count(244_707, _MEMORY, firm=False),
        "categories": _LVIS_CATEGORIES,
    },
    "zhiyuan_objv2_train.json": {
        "images": Count(1_742_289, "ultralytics/yolov5 pull request 5194"),
        "categories": Count(365, "Objects365"),
    },
    "zhiyuan_objv2_val.json": {
        "images": Count(80_000, "ultralytics/yolov5 pull request 5194"),
        "categories": Count(365, "Objects365"),
    },
    "image_data.json": {"images": Count(108_077, _VG, firm=False)},
}

# file by its official name -> (SHA-256, where it is published)
HASHES: Mapping[str, tuple[str, str]] = {
    "coco_to_synset.json": (
        "e6d4a9ae5c5af4f7ce1258f8a0d65b7409cab832955f1aaa8b21bf80b62f9b40",
        "data/ of lvis-dataset/lvis-api",
    ),
}

# shipped config by its name -> what `gcdis data check` counts: "set.what", or "classes"
_HALF = "half of LVIS v1 train's 100,170"
SETTINGS: Mapping[str, Mapping[str, Count]] = {
    "coco_half_lvis": {
        "labeled.images": Count(50_085, _HALF, tolerance=1),
        "unlabeled.images": Count(50_085, _HALF, tolerance=1),
        "validation.images": Count(19_809, _LVIS),
        "known classes": Count(79, "COCO's 80 by synset; LVIS v1 has no hot dog"),
        "classes": _LVIS_CATEGORIES,
    },
    "lvis_visual_genome": {
        "labeled.images": Count(100_170, _LVIS),
        "known classes": _LVIS_CATEGORIES,
        # which of Visual Genome's synsets were taken was not published: see min_images
        "classes": Count(3_929, "RNCDL's category list", firm=False),
    },
    "objects365": {
        "labeled.images": Count(118_287, _COCO),
        "known classes": Count(80, "COCO's, by the table of names in the config"),
        "unlabeled.images": Count(1_742_289, "ultralytics/yolov5 pull request 5194"),
        "validation.images": Count(80_000, "ultralytics/yolov5 pull request 5194"),
        "classes": Count(365, "Objects365"),
    },
}
