"""COCO files, for COCO's own readers, for CVAT and for FiftyOne: they differ in where files lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gcdis_ray.exporting.json_lists import JsonLists
from gcdis_ray.exporting.objects import ExportedImage, ExportedObject
from gcdis_ray.exporting.writer import Target
from gcdis_ray.masks.coco_rle import area
from gcdis_ray.masks.outlines import Polygon


@dataclass(frozen=True)
class Coco:
    """Writer of one annotation file. What COCO does not know of (``score``, ``reliability``,
    ``crop_index``, ``embedding``) is in fields that its readers pass over."""

    target: Target
    lists: JsonLists
    category_ids: Mapping[int, int]

    @staticmethod
    def open(target: Target, path: str) -> Coco:
        """Args: path: of the file, in the folder."""
        categories = [
            {"id": each.category_id, "name": each.name, "supercategory": _kind(each.known)}
            for each in target.classes
        ]
        head = {"info": {"description": f"gcdis export of {target.run}"}, "categories": categories}
        ids = {each.class_index: each.category_id for each in target.classes}
        return Coco(target, JsonLists(target.folder / path, head, ("images", "annotations")), ids)

    def add(self, number: int, name: str, image: ExportedImage) -> None:
        size = {"height": image.height_px, "width": image.width_px}
        self.lists["images"].add({"id": number, "file_name": name, **size})
        for found in image.objects:
            annotation = {
                "id": self.lists["annotations"].size + 1,
                "image_id": number,
                "category_id": self.category_ids[found.class_index],
                **self._place(image, found),
                "iscrowd": int(found.crowd),
                **({} if found.score is None else {"score": found.score}),
                **found.more,
            }
            self.lists["annotations"].add(annotation)

    def close(self) -> None:
        self.lists.close()

    def _place(self, image: ExportedImage, found: ExportedObject) -> dict[str, Any]:
        x0, y0, x1, y1 = found.bbox_xyxy
        box = {"bbox": [_short(v) for v in (x0, y0, x1 - x0, y1 - y0)]}
        if found.mask_rle is None:
            return {**box, "area": _short((x1 - x0) * (y1 - y0)), "segmentation": []}
        size = [image.height_px, image.width_px]
        covered = int(area(found.mask_rle, *size))
        if self.target.rle or found.crowd:  # readers take a crowd's run lengths only
            mask: Any = {"size": size, "counts": found.mask_rle}
        else:
            mask = [flat(polygon) for polygon in self.target.shapes.polygons(image, found)]
        return {**box, "area": covered, "segmentation": mask}


def flat(polygon: Polygon) -> list[float]:
    """x, y, x, y, ..."""
    return [_short(value) for value in polygon.ravel().tolist()]


def write_cvat_labels(target: Target) -> None:
    """``labels.json``: what CVAT takes as the labels of a task or project (Raw)."""
    labels = [{"name": each.name, "attributes": []} for each in target.classes]
    (target.folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


def _kind(known: bool) -> str:
    return "known" if known else "novel"


def _short(value: float) -> float:
    """Whole numbers as such: outlines run along the edges of pixels."""
    return int(value) if value == int(value) else round(value, 3)
