"""Label Studio: tasks with predictions, and the labeling config that they belong to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from gcdis_ray.exporting.json_lists import JsonList
from gcdis_ray.exporting.objects import ExportedImage, ExportedObject
from gcdis_ray.exporting.writer import Target
from gcdis_ray.masks.outlines import one_polygon

TASKS, CONFIG = "tasks.json", "label_config.xml"
_DIGITS = 4  # of percent: a thousandth of a pixel in a picture of 1,000


@dataclass(frozen=True)
class LabelStudio:
    """Writer of ``tasks.json`` and ``label_config.xml``. Labels that were given are annotations of
    their task, what was made is a prediction."""

    target: Target
    tasks: JsonList
    names: dict[int, str]

    @staticmethod
    def open(target: Target) -> LabelStudio:
        names = {each.class_index: each.name for each in target.classes}
        (target.folder / CONFIG).write_text(label_config(list(names.values())), encoding="utf-8")
        return LabelStudio(target, JsonList(target.folder / TASKS), names)

    def add(self, number: int, name: str, image: ExportedImage) -> None:
        places = [(f"{number}-{place}", found) for place, found in enumerate(image.objects, 1)]
        result = [self._region(key, image, found) for key, found in places]
        task: dict[str, Any] = {"data": {"image": f"{self.target.image_prefix}{quote(name)}"}}
        if image.given:
            task["annotations"] = [{"result": result}]
        else:
            task["predictions"] = [{"model_version": self.target.run, "result": result}]
            if scores := [found.score for found in image.objects if found.score is not None]:
                task["predictions"][0]["score"] = round(sum(scores) / len(scores), 6)
        self.tasks.add(task)

    def close(self) -> None:
        self.tasks.close()

    def _region(self, key: str, image: ExportedImage, found: ExportedObject) -> dict[str, Any]:
        polygon = one_polygon(self.target.shapes.polygons(image, found))
        percent = polygon / (image.width_px, image.height_px) * 100
        value = {
            "points": [[round(x, _DIGITS), round(y, _DIGITS)] for x, y in percent.tolist()],
            "closed": True,
            "polygonlabels": [self.names[found.class_index]],
        }
        region = {
            "id": key,
            "from_name": "label",
            "to_name": "image",
            "type": "polygonlabels",
            "original_width": image.width_px,
            "original_height": image.height_px,
            "image_rotation": 0,
            "value": value,
        }
        told = [f"{name} {value}" for name, value in found.more.items()]
        region |= {} if found.score is None else {"score": found.score}
        return region | ({"meta": {"text": told}} if told else {})


def label_config(names: list[str]) -> str:
    """XML of a project whose regions are polygons with these labels."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in names)
    return f"""<View>
  <Image name="image" value="$image" zoom="true"/>
  <PolygonLabels name="label" toName="image" strokeWidth="2" opacity="0.5">
{labels}
  </PolygonLabels>
</View>
"""


def local_prefix(out: Path) -> str:
    """How Label Studio fetches files of a folder that it serves itself, when the folder around the
    export is its document root."""
    return f"/data/local-files/?d={quote(out.name)}/images/"
