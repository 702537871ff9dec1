"""Objects of a YOLO folder as Ultralytics' data set gives them to a training.

python with_ultralytics.py FOLDER
"""

import json
import sys
from pathlib import Path

from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

data = check_det_dataset(str(Path(sys.argv[1]) / "data.yaml"), autodownload=False)
images = YOLODataset(img_path=data["train"], data=data, task="segment", augment=False, imgsz=128)
found = []
for label in images.labels:
    for number, segment in zip(label["cls"].ravel(), label["segments"], strict=True):
        found.append(
            {
                "image": Path(label["im_file"]).name,
                "size": label["shape"],
                "label": data["names"][int(number)],
                "polygon": segment.tolist(),
            }
        )
assert images[0]["masks"].shape[-1] > 0
print(json.dumps(found))
