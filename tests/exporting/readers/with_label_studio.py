"""Tasks as Label Studio's SDK judges them; and ``result.json``, which its converter makes of them
as COCO, once somebody has accepted every prediction.

python with_label_studio.py FOLDER
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import PredictionValue

folder = Path(sys.argv[1])
interface = LabelInterface((folder / "label_config.xml").read_text())
interface.validate()
tasks = json.loads((folder / "tasks.json").read_text())
predicted, given, accepted = [], [], []
for number, task in enumerate(tasks, start=1):
    for annotation in task.get("annotations", []):
        assert interface.validate_annotation(annotation)
        given += [region["value"]["polygonlabels"][0] for region in annotation["result"]]
    for prediction in task.get("predictions", []):
        errors = interface.validate_prediction(prediction, return_errors=True)
        assert not errors, errors
        read = PredictionValue(**prediction)
        predicted += [region["value"]["polygonlabels"][0] for region in read.result]
    (result,) = (made["result"] for made in task.get("annotations", task.get("predictions")))
    annotation = {"id": number, "result": result, "was_cancelled": False}
    accepted.append({"id": number, "data": task["data"], "annotations": [annotation]})
(folder / "accepted.json").write_text(json.dumps(accepted))
subprocess.run(
    [
        *(Path(sys.executable).with_name("label-studio-converter"), "export"),
        *("-i", folder / "accepted.json", "-c", folder / "label_config.xml"),
        *("-o", folder, "-f", "COCO"),
    ],
    check=True,
    stdout=sys.stderr,
    env=os.environ | {"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder.parent)},
)
print(json.dumps({"predicted": predicted, "given": given}))
