"""YOLO, as Ultralytics reads it for segmentation: a text file of polygons beside each image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import yaml

from gcdis_ray.exporting.objects import ExportedImage
from gcdis_ray.exporting.writer import Target
from gcdis_ray.masks.outlines import one_polygon


@dataclass(frozen=True)
class Yolo:
    """Writer of ``labels/<image>.txt`` and ``data.yaml``. Classes are numbered from 0 on, as the
    format wants it. Training and validation are the same images: to be divided by who trains."""

    target: Target
    numbers: dict[int, int]

    @staticmethod
    def open(target: Target) -> Yolo:
        names = {place: each.name for place, each in enumerate(target.classes)}
        told = {"train": "images", "val": "images", "names": names}
        text = yaml.safe_dump(told, sort_keys=False, allow_unicode=True)
        (target.folder / "data.yaml").write_text(text, encoding="utf-8")
        return Yolo(target, {each.class_index: n for n, each in enumerate(target.classes)})

    def add(self, number: int, name: str, image: ExportedImage) -> None:
        lines = []
        for found in image.objects:
            polygon = one_polygon(self.target.shapes.polygons(image, found))
            share = np.clip(polygon / (image.width_px, image.height_px), 0, 1)
            points = " ".join(f"{value:.6f}" for value in share.ravel().tolist())
            lines.append(f"{self.numbers[found.class_index]} {points}\n")
        path = (self.target.folder / "labels" / name).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines))

    def close(self) -> None:
        pass
