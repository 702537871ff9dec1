"""What stages hand to one another: schemas, keys, manifests, and typed handles to read them.

An *artifact* is the committed output of one stage: named tables (Parquet, sharded), tensors
(safetensors) and small JSON documents, listed in one manifest. Nothing in it can run code.

Tables of one pipeline are *co-sharded by image*: shard ``i`` of ``instances``, ``proposals``,
``instance_masks``, ``crops``, ``embeddings``, ``assignments``, ``pseudo_labels`` and
``predictions`` holds rows that belong to the images in shard ``i`` of ``images``. A shard can be
empty; none is ever missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from gcdis_ray.errors import ArtifactError

if TYPE_CHECKING:
    import torch

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
    "matches": _schema(  # detections that count towards AP, see metrics.matches
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

UNIQUE_ID = {
    "images": "image_id",
    "instances": "instance_id",
    "proposals": "proposal_id",
    "instance_masks": "instance_id",
    "crops": "crop_index",
    "embeddings": "crop_index",
    "assignments": "crop_index",
    "pseudo_labels": "crop_index",
}


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Equal values give equal text."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True
    )


def artifact_key(
    stage: str,
    version: int,
    config: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    seed: int | None,
    source: str | None = None,
) -> str:
    """Name of the artifact a stage would produce: equal arguments, equal bytes.

    Args:
        stage, version: the code. A stage raises its version when its results change.
        config: the stage's config as plain data, without anything that changes no result.
        inputs: input stage name -> its key.
        seed: the run's seed, None for a stage without randomness.
        source: fingerprint of data from outside (annotation files, images), if the stage reads any.

    Returns:
        24 hexadecimal digits of the SHA-256 over the canonical JSON of all of these.
    """
    payload = dict(
        stage=stage, version=version, config=config, inputs=inputs, seed=seed, source=source
    )
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class FileRecord:
    """One file of an artifact. ``path`` is relative to ``<stage>/<key>/``."""

    path: str
    bytes: int
    sha256: str
    rows: int | None = None  # tables only


@dataclass(frozen=True)
class Size:
    """How large an artifact is: rows of its longest table, bytes of all its files, bytes that were,
    or will be, read to make it, and, of its files, bytes of weights."""

    rows: int
    bytes: int
    read_bytes: int = 0
    weight_bytes: int = 0

    @property
    def image_bytes(self) -> int:
        """Of ingest: about those of the image files, which are stored or, with ``store: uri``, only
        read. They outweigh whatever else it reads."""
        return max(self.bytes, self.read_bytes)


@dataclass(frozen=True)
class Manifest:
    """The commit record of an artifact: what it holds and where it came from."""

    stage: str
    key: str
    version: int
    config: dict[str, Any]
    inputs: dict[str, str]
    seed: int | None
    source: str | None
    files: dict[str, list[FileRecord]]  # member name -> files in shard order
    counts: dict[str, int] = field(default_factory=dict)
    timings_s: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    io: dict[str, int] = field(default_factory=dict)  # read_bytes, written_bytes of the run
    created: str = ""

    @property
    def size(self) -> Size:
        rows = [sum(f.rows or 0 for f in files) for files in self.files.values()]
        every = [f for files in self.files.values() for f in files]
        return Size(
            max(rows, default=0),
            sum(f.bytes for f in every),
            self.io.get("read_bytes", 0),
            sum(f.bytes for f in every if f.path.endswith(".safetensors")),
        )

    def to_json(self) -> str:
        data = dict(self.__dict__)
        data["files"] = {
            name: [dict(f.__dict__) for f in files] for name, files in self.files.items()
        }
        return json.dumps({"format": "gcdis-manifest-1", **data}, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str, where: str) -> Manifest:
        try:
            data = json.loads(text)
            if data.pop("format") != "gcdis-manifest-1":
                raise ValueError("unknown manifest format")
            data["files"] = {
                name: [FileRecord(**f) for f in files] for name, files in data["files"].items()
            }
            return Manifest(**data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"not a manifest ({error})", where=where, fix="remove that file and run again"
            ) from error


class Opener(Protocol):
    """How handles read files; implemented in :mod:`gcdis_ray.storage`. Must pickle."""

    def read_bytes(self, record: FileRecord) -> bytes: ...
    def read_table(self, record: FileRecord, columns: Sequence[str] | None) -> pa.Table: ...


@dataclass(frozen=True)
class Table:
    """A sharded table. Small to pickle: it holds records of files, not rows."""

    name: str
    shards: tuple[FileRecord, ...]
    opener: Opener

    @property
    def num_rows(self) -> int:
        return sum(shard.rows or 0 for shard in self.shards)

    @property
    def num_shards(self) -> int:
        return len(self.shards)

    def shard(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of one shard in their stored order, schema checked."""
        return self.opener.read_table(self.shards[index], columns)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in shard order. Ask for the columns you need: image bytes are large."""
        return pa.concat_tables([self.shard(i, columns) for i in range(self.num_shards)])

    def iter_shards(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        return (self.shard(i, columns) for i in range(self.num_shards))


@dataclass(frozen=True)
class TensorFile:
    """Handle to stored tensors. Small to pickle: workers load them where they run."""

    record: FileRecord
    opener: Opener

    def load(self) -> dict[str, torch.Tensor]:
        from safetensors.torch import load

        return load(self.opener.read_bytes(self.record))


@dataclass(frozen=True)
class Artifact:
    """A committed artifact, read by member name. Every read checks size and SHA-256."""

    manifest: Manifest
    opener: Opener

    @property
    def key(self) -> str:
        return self.manifest.key

    def has(self, member: str) -> bool:
        return member in self.manifest.files

    def _files(self, member: str) -> list[FileRecord]:
        try:
            return self.manifest.files[member]
        except KeyError:
            raise ArtifactError(
                f"no member {member!r}; it has {sorted(self.manifest.files)}",
                where=f"{self.manifest.stage}/{self.key}",
            ) from None

    def table(self, member: str) -> Table:
        return Table(member, tuple(self._files(member)), self.opener)

    def json(self, member: str) -> Any:
        return json.loads(self.opener.read_bytes(self._files(member)[0]))

    def tensor_file(self, member: str) -> TensorFile:
        return TensorFile(self._files(member)[0], self.opener)


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
