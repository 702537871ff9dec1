"""Objects of a folder as FiftyOne's importer gives them to its database; and how many of them are
in the database, if it starts here.

python with_fiftyone.py FOLDER
"""

import json
import sys

import fiftyone as fo
from fiftyone.core.config import FiftyOneConfigError
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
try:
    data = fo.Dataset.from_dir(
        dataset_dir=sys.argv[1],
        dataset_type=fo.types.COCODetectionDataset,
        label_types="segmentations",
    )
    lengths = [len(e) for es in data.values("segmentations.detections.embedding") for e in es or ()]
    in_database = len(lengths)
except FiftyOneConfigError:
    in_database = None
print(json.dumps({"objects": found, "in_database": in_database}))
