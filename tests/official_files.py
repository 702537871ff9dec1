"""Small files in the shapes of the official data sets, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from coco_folder import image_bytes, square, write_json

COCO_CLASSES = {
    1: ("person", "person.n.01"),
    17: ("cat", "cat.n.01"),
    58: ("hot dog", "frank.n.02"),
}
LVIS_CLASSES = [  # id, name, synset, frequency, image_count
    (1, "aerosol_can", "aerosol.n.02", "c", 64),
    (2, "cat", "cat.n.01", "f", 1918),
    (3, "person", "person.n.01", "f", 1928),
    (4, "truffle_(chocolate)", "truffle.n.03", "r", 1),
]


def coco_to_synset(path: Path) -> None:
    """In the shape of the LVIS API's file."""
    write_json(
        path,
        {
            name: {"coco_cat_id": i, "meaning": "", "synset": synset}
            for i, (name, synset) in COCO_CLASSES.items()
        },
    )


def coco(
    path: Path, ids: list[int], height: int = 30, width: int = 40, folder: str = ""
) -> dict[str, Any]:
    """Image i with a person (annotation 10 i), a cat (10 i + 1) and a hot dog (10 i + 2)."""
    data: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": f"{folder}{i:012d}.jpg", "height": height, "width": width}
            for i in ids
        ],
        "annotations": [
            {
                "id": 10 * i + offset,
                "image_id": i,
                "category_id": category_id,
                "bbox": [3 + 8 * offset, 5, 6, 6],
                "area": 36,
                "iscrowd": 0,
                "segmentation": square(3 + 8 * offset, 5, 6),
            }
            for i in ids
            for offset, category_id in enumerate(COCO_CLASSES)
        ],
        "categories": [{"id": i, "name": name} for i, (name, _) in COCO_CLASSES.items()],
    }
    write_json(path, data)
    return data


def lvis(path: Path, ids: list[int], folder: str = "train2017", **changes: Any) -> dict[str, Any]:
    """v1: no file names; image i with a cat (annotation 10 i) and a truffle (10 i + 1)."""
    data: dict[str, Any] = {
        "info": {"description": "LVIS v1"},
        "annotations": [
            {
                "id": 10 * i + offset,
                "image_id": i,
                "category_id": category_id,
                "bbox": [3 + 10 * offset, 5, 6, 6],
                "area": 36,
                "segmentation": square(3 + 10 * offset, 5, 6),
            }
            for i in ids
            for offset, category_id in enumerate((2, 4))
        ],
        "images": [
            {
                "id": i,
                "coco_url": f"http://images.cocodataset.org/{folder}/{i:012d}.jpg",
                "height": 30,
                "width": 40,
                "neg_category_ids": [1],
                "not_exhaustive_category_ids": [3],
            }
            for i in ids
        ],
        "categories": [
            {"id": i, "name": n, "synset": s, "frequency": f, "image_count": c, "synonyms": [n]}
            for i, n, s, f, c in LVIS_CLASSES
        ],
        **changes,
    }
    write_json(path, data)
    return data


def objects365(path: Path, names: list[str]) -> dict[str, Any]:
    """Image i at ``images/NAME`` with a person; every third is a drawn one."""
    data: dict[str, Any] = {
        "images": [
            {"id": i, "file_name": f"images/{name}", "height": 30, "width": 40}
            for i, name in enumerate(names, 1)
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": 1 + i % 2,
                "bbox": [3.5, 5, 10, 10],
                "area": 100,
                "iscrowd": 0,
                "isfake": int(i % 3 == 0),
                "isreflected": 0,
            }
            for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "Person"}, {"id": 2, "name": "Sneakers"}],
    }
    write_json(path, data)
    return data


def visual_genome(folder: Path, coco_ids: dict[int, int | None], scale: int = 2) -> None:
    """Image i, twice the size of COCO's, with a cat, a tree, a nameless thing; 1 also a lamp."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "image_data.json",
        [
            {
                "image_id": i,
                "width": 40 * scale,
                "height": 30 * scale,
                "coco_id": coco_id,
                "flickr_id": None,
                "url": f"https://cs.stanford.edu/people/rak248/VG_100K{'_2' * (i % 2)}/{i}.jpg",
            }
            for i, coco_id in coco_ids.items()
        ],
    )

    def thing(i: int, number: int, names: list[str], synsets: list[str]) -> dict[str, Any]:
        box = {"x": 4 * number, "y": 6, "w": 8, "h": 10}
        return {"object_id": 100 * i + number, **box, "names": names, "synsets": synsets}

    write_json(
        folder / "objects.json",
        [
            {
                "image_id": i,
                "image_url": "",
                "objects": [
                    thing(i, 1, ["cat"], ["cat.n.01"]),
                    thing(i, 2, ["trees"], ["tree.n.01"]),
                    thing(i, 3, ["stuff"], []),
                    *([thing(i, 4, ["lamp"], ["lamp.n.02"])] if i == 1 else []),
                ],
            }
            for i in coco_ids
        ],
    )


def voc(root: Path, names: list[str]) -> None:
    """Two touching objects per image, a cat left and a person right, with a void border."""
    from PIL import Image

    palette = np.random.default_rng(0).integers(0, 256, 768).tolist()
    for folder in ("JPEGImages", "SegmentationObject", "SegmentationClass"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    objects, classes = np.zeros((2, 30, 40), np.uint8)
    objects[5:15, 5:10], objects[5:15, 11:20], objects[5:15, 10] = 1, 2, 255
    classes[5:15, 5:10], classes[5:15, 11:20], classes[5:15, 10] = 8, 15, 255
    for seed, name in enumerate(names):
        (root / f"JPEGImages/{name}.jpg").write_bytes(image_bytes(seed))
        for folder, indices in (("SegmentationObject", objects), ("SegmentationClass", classes)):
            image = Image.fromarray(indices)
            image.putpalette(palette)
            image.save(root / f"{folder}/{name}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{n}\n" for n in names))
