"""Schemas of the tables that stages hand to one another: name, type, unit, whether null may occur.

A stage names the schema of each table that it gives; what one stage alone makes and reads, has its
schema in that stage's room.
"""

from __future__ import annotations

import pyarrow as pa

from gcdis_ray.errors import ArtifactError

BOX = pa.list_(pa.float32(), 4)  # x0, y0, x1, y1 in absolute pixels, fixed-size list
DIGESTS = {"bytes": "sha256"}  # large column: the one that has the SHA-256 of each of its values
WHOLE_IMAGE = "image"  # origin of the mask of an object that is its image


def schema(**columns: pa.DataType | tuple[pa.DataType, str]) -> pa.Schema:
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
    bbox_xyxy=BOX,
    mask_rle=(pa.string(), "null"),  # COCO compressed RLE counts, size = the image's
    height_px=pa.int32(),  # of the image
    width_px=pa.int32(),
    area_px=pa.float64(),
    iscrowd=pa.bool_(),
)

IMAGES = schema(
    image_id=pa.int64(),
    uri=pa.string(),  # relative to the data set's image folder
    bytes=(pa.binary(), "null"),  # the encoded file as it was read
    turn=pa.int8(),  # EXIF's orientation, 1 to 8, by which who decodes the file turns it; 1: none
    height_px=pa.int32(),  # after that turn
    width_px=pa.int32(),
    sha256=pa.string(),
    split=pa.string(),  # labeled | unlabeled | validation
)

IMAGE_INDEX = schema(  # images without their bytes: cheap to read where files are not needed
    image_id=pa.int64(),
    uri=pa.string(),
    height_px=pa.int32(),
    width_px=pa.int32(),
    split=pa.string(),
)

QUARANTINE = schema(split=pa.string(), uri=pa.string(), reason=pa.string())

INSTANCES = schema(**_ANNOTATION)  # labeled images, known classes only

TRUTH_IMAGES = schema(
    image_id=pa.int64(),
    split=pa.string(),
    height_px=pa.int32(),
    width_px=pa.int32(),
    # LVIS, null elsewhere: categories verified absent, and those not annotated exhaustively
    absent_category_ids=(pa.list_(pa.int64()), "null"),
    not_exhaustive_category_ids=(pa.list_(pa.int64()), "null"),
)

TRUTH_INSTANCES = schema(**_ANNOTATION, split=pa.string())  # unlabeled and validation

PROPOSALS = schema(
    proposal_id=pa.int64(),
    image_id=pa.int64(),
    bbox_xyxy=BOX,
    mask_rle=pa.string(),
    height_px=pa.int32(),
    width_px=pa.int32(),
    area_px=pa.float64(),
    objectness=pa.float32(),  # in [0, 1]
    origin=pa.string(),  # model | external | image (the object is the whole image)
)

INSTANCE_MASKS = schema(  # of labeled objects that came with a box only, or are the whole image
    instance_id=pa.int64(),
    image_id=pa.int64(),
    mask_rle=pa.string(),
    area_px=pa.float64(),  # of the mask
    origin=pa.string(),  # model (the mask head, given the box) | box (the box itself) | image
)

CROPS = schema(
    crop_index=pa.int64(),  # dense 0..N-1 in shard order
    image_id=pa.int64(),
    source_id=pa.int64(),  # instance_id (class_index >= 0) or proposal_id
    class_index=pa.int32(),  # known class of a labeled crop, -1 for an unlabeled one
    window_xyxy=pa.list_(pa.int32(), 4),  # what of the image the crop shows
    bbox_xyxy=BOX,  # the object's own tight box
    jpeg=pa.binary(),  # RGB, height and width of the window, scaled down to a configured side
    mask_png=pa.binary(),  # one bit, decoded as 0 or 255, same size as the jpeg
)

EMBEDDINGS = schema(
    crop_index=pa.int64(), class_index=pa.int32(), embedding=pa.list_(pa.float32())
)  # L2-normalised, one length for the whole artifact

ASSIGNMENTS = schema(
    crop_index=pa.int64(),
    class_index=pa.int32(),  # as in crops: the label given, -1 if none
    cluster_id=pa.int32(),  # argmax over known (0..num_known-1) then discovered outputs
    topk_ids=pa.list_(pa.int32()),
    topk_probabilities=pa.list_(pa.float32()),  # softmax, descending
    embedding=pa.list_(pa.float32()),  # projection, L2-normalised
)

PARTITION = schema(  # the class of every crop, after all that has been said of it
    crop_index=pa.int64(),
    cluster_id=pa.int32(),  # class_index of the curated classes, or of a continued run's; -1: none
)

PLACED = schema(  # where discovery starts from: clusters of all crops before it trains
    crop_index=pa.int64(),
    cluster_id=pa.int32(),  # below the number of known classes: the known class of that index
)

PSEUDO_LABELS = schema(
    crop_index=pa.int64(),
    image_id=pa.int64(),
    source_id=pa.int64(),  # proposal_id: pseudo-labels exist for unlabeled crops only
    cluster_id=pa.int32(),  # as in partition, else assignments: the class it is taken for
    probability=pa.float32(),
    stability=pa.float32(),  # s_i, agreement of the snapshots with the last one
    reliability=pa.float32(),  # u_i, rank within the pseudo-class, in (0, 1]
)

KEPT_CROPS = schema(  # some of every class of an earlier run, for one that continues it
    class_index=pa.int32(),
    crop_index=pa.int64(),  # in the run that it came with
    embedding=pa.list_(pa.float32()),  # frozen, as in embeddings
    jpeg=(pa.binary(), "null"),  # as in crops; of a few crops of each class
    mask_png=(pa.binary(), "null"),
)

PREDICTIONS = schema(
    image_id=pa.int64(),
    class_index=pa.int32(),
    score=pa.float32(),
    bbox_xyxy=BOX,
    mask_rle=pa.string(),
    height_px=pa.int32(),
    width_px=pa.int32(),
)

HISTORY = schema(step=pa.int64(), name=pa.string(), value=pa.float64())


def check_schema(name: str, table: pa.Table, want: pa.Schema) -> pa.Table:
    """The table with exactly the declared columns in order, or an :class:`ArtifactError`.

    Args:
        name: of the table, for the message.
    """
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


PLACED = schema(  # the cluster of every crop before training
    crop_index=pa.int64(),
    cluster_id=pa.int32(),  # below the number of told classes: that class
)
