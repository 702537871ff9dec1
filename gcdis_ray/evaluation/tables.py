"""Schemas of the tables that evaluation counts in."""

from __future__ import annotations

import pyarrow as pa

from gcdis_ray.store.schemas import schema

CROP_TRUTH = schema(  # of unlabeled crops, row by row as in pseudo_labels
    crop_index=pa.int64(),
    category_id=pa.int64(),  # of the true object that the crop was matched to, -1 for none
    iou=pa.float32(),  # with it, 0 for none
)

CLASS_OBJECTS = schema(  # true objects of the images of a shard
    split=pa.string(),
    category_id=pa.int64(),
    objects=pa.int64(),  # crowds are none
    crowds=pa.int64(),
    with_proposal=pa.int64(),  # of the objects
)

CLUSTER_COUNTS = schema(  # how often, within a shard, an output met a true class
    cluster_id=pa.int32(), category_id=pa.int64(), count=pa.int64()
)

PROPOSAL_RECALL = schema(  # rows of a shard: every kind and group, see metrics.average_recall
    kind=pa.string(),  # mask | box
    group=pa.string(),  # all | known | novel
    objects=pa.list_(pa.int64(), 4),  # that count, by area range
    met=pa.list_(pa.int64()),  # of them: numbers of proposals x area ranges x thresholds
)

PROPOSAL_TOTALS = schema(  # one row a shard, of unlabeled images that ground truth tells of
    images=pa.int64(),
    objects=pa.int64(),
    objects_without_mask=pa.int64(),
    proposals=pa.int64(),
    most_proposals=pa.int64(),  # of an image
)

MATCHES = schema(  # detections that count towards AP, see metrics.ap_rows
    class_column=pa.int32(),  # position of the category among all, by rising id
    image_id=pa.int64(),
    rank=pa.int32(),  # within image and class, by falling score
    score=pa.float64(),
    mask_matched=(pa.int64(), "null"),  # a bit for each of 4 area ranges x 10 IoU thresholds;
    mask_ignored=(pa.int64(), "null"),  # null where masks cannot be scored
    box_matched=(pa.int64(), "null"),
    box_ignored=(pa.int64(), "null"),
)

OBJECT_COUNTS = schema(  # true objects that count
    class_column=pa.int32(),
    kind=pa.string(),  # mask | box
    num_objects=pa.list_(pa.int64(), 4),  # by area range
)

MATCH_TOTALS = schema(  # one row a shard
    images=pa.int64(),
    objects=pa.int64(),
    detections=pa.int64(),  # that count
    unmapped_predictions=pa.int64(),
    objects_without_mask=pa.int64(),
    detections_without_mask=pa.int64(),
    derived_boxes=pa.int64(),
)

CURVES = schema(  # of classes with an object, see metrics.average_precision
    class_column=pa.int32(),
    kind=pa.string(),
    precision=pa.list_(pa.float64()),  # area ranges x thresholds x 101 recalls; -1: no object
    recall=pa.list_(pa.float64()),  # caps x area ranges x thresholds
)
