"""Schemas of the tables that methods give besides the assignments."""

from __future__ import annotations

import pyarrow as pa

from gcdis_ray.store.schemas import schema

AGREEMENT = schema(  # of snapshots; discoveries that were pruned only
    step=pa.int64(),  # of a snapshot, the last one included
    output=pa.int32(),  # argmax there, over all outputs
    last_output=pa.int32(),  # argmax in the last snapshot
    crops=pa.int64(),  # of the shard
    confidence=pa.float64(),  # the last snapshot's largest probability, summed over them
)

HOLDOUT_CURVE = schema(  # while training, on a sample of the crops whose labels are withheld
    step=pa.int64(), accuracy=pa.float64()
)

HEADNESS = schema(  # of every crop at the end of training
    crop_index=pa.int64(),
    temperature=pa.float32(),  # instance-wise
    headness=pa.float32(),
)

PLACING_TRIALS = schema(  # one way to place crops, judged by one way to withhold labels
    split=pa.int32(),
    space=pa.string(),
    clusterer=pa.string(),
    stretch=(pa.float64(), "null"),  # of linkage
    known=(pa.float64(), "null"),  # accuracy on withheld crops of visible classes; null: none are
    novel=(pa.float64(), "null"),  # of hidden classes
)

SORTED = schema(  # new crops among the classes of the earlier run
    crop_index=pa.int64(),
    class_index=pa.int32(),  # that the crop is most likely of, -1: like what was rejected
    probability=pa.float32(),
    distance=pa.float32(),  # mean, to the nearest kept crops
    topk_ids=pa.list_(pa.int32()),
    topk_probabilities=pa.list_(pa.float32()),
    embedding=pa.list_(pa.float32()),  # the method's
)
