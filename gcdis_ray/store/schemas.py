"""Schemas of every table that an artifact can hold: name, type, unit and whether null may occur."""

from __future__ import annotations

import pyarrow as pa

from gcdis_ray.errors import ArtifactError

_BOX = pa.list_(pa.float32(), 4)  # x0, y0, x1, y1 in absolute pixels, fixed-size list


def _schema(**columns: pa.DataType | tuple[pa.DataType, str]) -> pa.Schema:
    """Columns are required unless given as ``(type, "null")``."""
    fields = []
    for name, kind in columns.items():
        dtype, nullable = (kind[0], True) if isinstance(kind, tuple) else (kind, False)
        fields.append(pa.field(name, dtype, nullable=nullable))
    return pa.schema(fields)


_ANNOTATION = dict(
    instance_id=pa.int64(),
    image_id=pa.int64(),
    category_id=pa.int64(),  # the dataset's own id
    class_index=pa.int32(),  # contiguous over known classes, -1 for any other
    bbox_xyxy=_BOX,
    mask_rle=(pa.string(), "null"),  # COCO compressed RLE counts, size = the image's
    height_px=pa.int32(),  # of the image
    width_px=pa.int32(),
    area_px=pa.float64(),
    iscrowd=pa.bool_(),
)

_TRIALS = _schema(  # one clustering of one draw of crops each, see clustering.class_count.trials
    method=pa.string(),
    draw=pa.int32(),
    parameter=pa.float64(),
    num_classes=pa.int32(),
    recall=pa.list_(pa.float64()),  # of every known class
    weight=pa.list_(pa.float64()),  # of it in the score
    silhouette=pa.float64(),
    inertia=pa.float64(),
)

SCHEMAS: dict[str, pa.Schema] = {
    "images": _schema(
        image_id=pa.int64(),
        uri=pa.string(),  # relative to the data set's image folder
        bytes=(pa.binary(), "null"),  # the encoded file as it was read
        height_px=pa.int32(),
        width_px=pa.int32(),
        sha256=pa.string(),
        split=pa.string(),  # labeled | unlabeled | validation
    ),
    "image_index": _schema(  # images without their bytes: cheap to read where files are not needed
        image_id=pa.int64(),
        uri=pa.string(),
        height_px=pa.int32(),
        width_px=pa.int32(),
        split=pa.string(),
    ),
    "listing": _schema(  # images to read; laid aside while ingest runs
        image_id=pa.int64(),
        uri=pa.string(),
        height_px=(pa.int32(), "null"),  # of the annotation file
        width_px=(pa.int32(), "null"),
        split=pa.string(),
    ),
    "annotation_runs": _schema(  # checked annotations on their way to their images; laid aside
        image_row=pa.int64(),  # in the list of images, -1 for none
        instance_id=pa.int64(),  # -1 where it cannot be read
        category_id=pa.int64(),
        bbox_xyxy=_BOX,
        mask_rle=(pa.string(), "null"),
        area_px=pa.float64(),
        iscrowd=pa.bool_(),
        reason=(pa.string(), "null"),  # why it was turned down
    ),
    "external_masks": _schema(  # the user's masks on their way to their images; laid aside
        shard=pa.int64(),  # of the images
        position=pa.int64(),  # in the file
        image_id=pa.int64(),
        entry=pa.string(),  # score and segmentation, as JSON
    ),
    "quarantine": _schema(split=pa.string(), uri=pa.string(), reason=pa.string()),
    "instances": _schema(**_ANNOTATION),  # labeled images, known classes only
    "truth_images": _schema(
        image_id=pa.int64(),
        split=pa.string(),
        height_px=pa.int32(),
        width_px=pa.int32(),
        # LVIS, null elsewhere: categories verified absent, and those not annotated exhaustively
        absent_category_ids=(pa.list_(pa.int64()), "null"),
        not_exhaustive_category_ids=(pa.list_(pa.int64()), "null"),
    ),
    "truth_instances": _schema(**_ANNOTATION, split=pa.string()),  # unlabeled and validation
    "proposals": _schema(
        proposal_id=pa.int64(),
        image_id=pa.int64(),
        bbox_xyxy=_BOX,
        mask_rle=pa.string(),
        height_px=pa.int32(),
        width_px=pa.int32(),
        area_px=pa.float64(),
        objectness=pa.float32(),  # in [0, 1]
        origin=pa.string(),  # model | external
    ),
    "instance_masks": _schema(  # of labeled objects that came with a box only
        instance_id=pa.int64(),
        image_id=pa.int64(),
        mask_rle=pa.string(),
        area_px=pa.float64(),  # of the mask
        origin=pa.string(),  # model (the mask head, given the box) | box (the box itself)
    ),
    "crops": _schema(
        crop_index=pa.int64(),  # dense 0..N-1 in shard order
        image_id=pa.int64(),
        source_id=pa.int64(),  # instance_id (class_index >= 0) or proposal_id
        class_index=pa.int32(),  # known class of a labeled crop, -1 for an unlabeled one
        window_xyxy=pa.list_(pa.int32(), 4),  # what of the image the crop shows
        bbox_xyxy=_BOX,  # the object's own tight box
        jpeg=pa.binary(),  # RGB, height and width of the window, scaled down to a configured side
        mask_png=pa.binary(),  # one bit, decoded as 0 or 255, same size as the jpeg
    ),
    "embeddings": _schema(
        crop_index=pa.int64(), class_index=pa.int32(), embedding=pa.list_(pa.float32())
    ),  # L2-normalised, one length for the whole artifact
    "trials": _TRIALS,
    "trials_refined": _TRIALS,
    "assignments": _schema(
        crop_index=pa.int64(),
        class_index=pa.int32(),  # as in crops: the label given, -1 if none
        cluster_id=pa.int32(),  # argmax over known (0..num_known-1) then discovered outputs
        topk_ids=pa.list_(pa.int32()),
        topk_probabilities=pa.list_(pa.float32()),  # softmax, descending
        temperature=pa.float32(),  # instance-wise, at the end of training
        headness=pa.float32(),
        embedding=pa.list_(pa.float32()),  # projection, L2-normalised
    ),
    "stabilities": _schema(  # of unlabeled crops, before they are ranked
        crop_index=pa.int64(),
        image_id=pa.int64(),
        source_id=pa.int64(),
        class_index=pa.int32(),
        probability=pa.float32(),
        stability=pa.float32(),
    ),
    "pseudo_labels": _schema(
        crop_index=pa.int64(),
        image_id=pa.int64(),
        source_id=pa.int64(),  # proposal_id: pseudo-labels exist for unlabeled crops only
        class_index=pa.int32(),  # known or discovered class of the segmenter
        probability=pa.float32(),
        stability=pa.float32(),  # s_i, agreement of the snapshots with the last one
        reliability=pa.float32(),  # u_i, rank within the pseudo-class, in (0, 1]
    ),
    "predictions": _schema(
        image_id=pa.int64(),
        class_index=pa.int32(),
        score=pa.float32(),
        bbox_xyxy=_BOX,
        mask_rle=pa.string(),
        height_px=pa.int32(),
        width_px=pa.int32(),
    ),
    "crop_truth": _schema(  # of unlabeled crops, row by row as in pseudo_labels
        crop_index=pa.int64(),
        category_id=pa.int64(),  # of the true object that the crop was matched to, -1 for none
        iou=pa.float32(),  # with it, 0 for none
    ),
    "class_objects": _schema(  # true objects of the images of a shard
        split=pa.string(),
        category_id=pa.int64(),
        objects=pa.int64(),  # crowds are none
        crowds=pa.int64(),
        with_proposal=pa.int64(),  # of the objects
    ),
    "cluster_counts": _schema(  # how often, within a shard, an output met a true class
        class_index=pa.int32(), category_id=pa.int64(), count=pa.int64()
    ),
    "matches": _schema(  # detections that count towards AP, see metrics.ap_rows
        class_column=pa.int32(),  # position of the category among all, by rising id
        image_id=pa.int64(),
        rank=pa.int32(),  # within image and class, by falling score
        score=pa.float64(),
        mask_matched=(pa.int64(), "null"),  # a bit for each of 4 area ranges x 10 IoU thresholds;
        mask_ignored=(pa.int64(), "null"),  # null where masks cannot be scored
        box_matched=(pa.int64(), "null"),
        box_ignored=(pa.int64(), "null"),
    ),
    "object_counts": _schema(  # true objects that count
        class_column=pa.int32(),
        kind=pa.string(),  # mask | box
        num_objects=pa.list_(pa.int64(), 4),  # by area range
    ),
    "match_totals": _schema(  # one row a shard
        images=pa.int64(),
        objects=pa.int64(),
        detections=pa.int64(),  # that count
        unmapped_predictions=pa.int64(),
        objects_without_mask=pa.int64(),
        detections_without_mask=pa.int64(),
        derived_boxes=pa.int64(),
    ),
    "curves": _schema(  # of classes with an object, see metrics.average_precision
        class_column=pa.int32(),
        kind=pa.string(),
        precision=pa.list_(pa.float64()),  # area ranges x thresholds x 101 recalls; -1: no object
        recall=pa.list_(pa.float64()),  # caps x area ranges x thresholds
    ),
    "history": _schema(step=pa.int64(), name=pa.string(), value=pa.float64()),
    "agreement": _schema(  # of snapshots; discoveries that were pruned only
        step=pa.int64(),  # of a snapshot, the last one included
        output=pa.int32(),  # argmax there, over all outputs
        last_output=pa.int32(),  # argmax in the last snapshot
        crops=pa.int64(),  # of the shard
        confidence=pa.float64(),  # the last snapshot's largest probability, summed over them
    ),
    # while training, on a sample of the crops whose labels are withheld; hold-out runs only
    "holdout_curve": _schema(step=pa.int64(), accuracy=pa.float64()),
}


def check_schema(name: str, table: pa.Table) -> pa.Table:
    """The table with exactly the declared columns in order, or an :class:`ArtifactError`."""
    want = SCHEMAS[name]
    if set(table.column_names) != set(want.names):
        raise ArtifactError(
            f"columns {sorted(table.column_names)}, declared are {sorted(want.names)}",
            where=f"table {name!r}",
        )
    table = table.select(want.names)
    for column in want:
        if not column.nullable and table[column.name].null_count:
            raise ArtifactError(f"null in required column {column.name!r}", where=f"table {name!r}")
    try:
        return pa.table([table[c.name].cast(c.type) for c in want], schema=want)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ArtifactError(str(error), where=f"table {name!r}") from error
