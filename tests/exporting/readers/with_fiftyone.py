"""Objects of a folder as FiftyOne's importer gives them to its database, which is not asked.

python with_fiftyone.py FOLDER
"""

import json
import sys

from fiftyone.utils.coco import COCODetectionDatasetImporter

importer = COCODetectionDatasetImporter(dataset_dir=sys.argv[1], label_types="segmentations")
importer.setup()
found = []
for path, metadata, detections in importer:
    with open(path, "rb") as file:
        assert file.read(3) == b"\xff\xd8\xff"
    for each in detections.detections:
        found.append(
            {
                "size": [metadata.height, metadata.width],
                "label": each.label,
                "score": each.confidence,
                "reliability": each["reliability"],
                "crop_index": each["crop_index"],
                "embedding": each["embedding"],
                "box": each.bounding_box,
                "mask": each.mask.astype(int).tolist(),
            }
        )
print(json.dumps(found))
