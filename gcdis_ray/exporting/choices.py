"""What can be exported, by name. Cheap to import, for help and mistakes."""

FORMATS = ("coco", "label-studio", "fiftyone", "cvat", "yolo", "folders")
OF = ("pseudo-labels", "predictions", "crops")
IMAGES = ("copy", "link", "none")
CROPS, FOLDERS = "crops", "folders"  # go together
MIN_IOU = 0.95  # how much of a mask its polygons keep, unless told
