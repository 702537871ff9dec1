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
