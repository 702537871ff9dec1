"""Objects of a COCO folder as datumaro, CVAT's reader, sees them; and the folder that it writes.

python with_datumaro.py FOLDER OUT
"""

import json
import sys

import datumaro as dm

data = dm.Dataset.import_from(sys.argv[1], "coco")
labels = data.categories()[dm.AnnotationType.label]
found = []
for item in data:
    with open(item.media.path, "rb") as file:
        assert file.read(3) == b"\xff\xd8\xff"
    for annotation in item.annotations:
        if annotation.type != dm.AnnotationType.bbox:
            points = [float(v) for v in getattr(annotation, "points", ())]
            found.append(
                {
                    "image": item.id,
                    "object": annotation.group,
                    "label": labels.items[annotation.label].name,
                    "score": annotation.attributes["score"],
                    "polygon": points,
                    "mask": None if points else annotation.image.astype(int).ravel().tolist(),
                }
            )
data.export(sys.argv[2], "coco_instances", save_media=True)
print(json.dumps(found))
