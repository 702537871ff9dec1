"""keep: what does a run go on with that continues an earlier one?

It copies from the earlier run what new crops are found, embedded and sorted by: the proposer, the
backbone, the trained method and the classes, and of every class some crops to compare new ones
with. Nothing is fitted. From here on the run needs nothing of the earlier one any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from gcdis_ray.config import StageConfig
from gcdis_ray.curating.outputs import Outputs
from gcdis_ray.errors import DataError
from gcdis_ray.methods.hold_out_config import for_tuning_only
from gcdis_ray.methods.method import load_method, method_names
from gcdis_ray.store.artifacts import Artifact, Size
from gcdis_ray.store.members import Inputs, Members, document, optional, table, tensors, whole
from gcdis_ray.store.schemas import KEPT_CROPS

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work

Ints = NDArray[np.int64]

ID = "keep"
VERSION = 1
TAKES: tuple[str, ...] = ()
EARLIER = (
    "classes",
    "discovered_classes",
    optional("kept"),
    whole("method"),
    "proposer_spec",
    optional("proposer"),
    "crops",
    "embed_spec",
    optional("backbone"),
    "embeddings",
    "assignments",
    optional("partition"),
    optional("curation"),
    optional("kept_crops"),
)
SEEDED = True
_LEAST = 4  # crops of a class: three neighbours besides one that is looked at


def _gives():
    weights = (m for name in method_names() for m in load_method(name).GIVES if m.kind == "tensors")
    return (
        document("classes"),
        document("kept_classes"),
        document("kept"),
        document("method"),
        document("proposer_spec"),
        tensors("proposer", optional=True),
        document("embed_spec"),
        tensors("backbone", optional=True),
        table("kept_crops", KEPT_CROPS),
        *{member.name: member for member in weights}.values(),
    )


GIVES = _gives()


class Config(StageConfig):
    """What is kept of every class."""

    crops_per_class: int = Field(
        300, ge=_LEAST, le=100_000, description="that new crops are compared with, drawn at random"
    )
    crops_in_all: int = Field(
        60_000, ge=100, le=10_000_000, description="of many classes each keeps fewer; at least 4"
    )
    pictures_per_class: int = Field(12, ge=1, le=1000, description="shown beside new crops")


def summary(artifact: Artifact) -> list[str]:
    classes, method = artifact.json("kept_classes"), artifact.json("method")
    num = artifact.table("kept_crops").num_rows
    known = sum(row["known"] for row in classes)
    return [
        f"kept                   {known} known and {len(classes) - known} discovered classes with "
        f"their ids, the proposer, method {method['name']}, {num:,} crops; nothing trained"
    ]


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """Some crops, and weights of about a million numbers each."""
    rows = min(config.crops_in_all, 100 * config.crops_per_class)
    return Size(rows, 3000 * rows + 12_000_000, 3000 * rows + 12_000_000, 12_000_000)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    if inputs.beside("method").has("holdout"):
        raise for_tuning_only()
    classes = sorted(inputs.json("discovered_classes"), key=lambda row: row["class_index"])
    class_N = _class_of_crops(inputs)
    if not (class_N >= 0).any():
        raise DataError("no class of the earlier run has a crop", where="continue_from")
    plain = ("class_index", "name", "known", "category_id")
    work.write_json("classes", inputs.json("classes"))
    work.write_json("kept_classes", [{name: row[name] for name in plain} for row in classes])
    work.write_json("kept", _kept(classes, class_N, inputs))
    for name in ("proposer_spec", "embed_spec"):
        work.write_json(name, inputs.json(name))
    for name in ("proposer", "backbone"):
        if inputs.has(name):
            work.write_tensors(name, inputs.tensor_file(name).load())
    _copy_method(inputs.beside("method"), work)
    each = max(_LEAST, min(config.crops_per_class, config.crops_in_all // len(classes)))
    rank_N = _ranks(class_N, work.seed)
    work.write_table("kept_crops", _read_crops(inputs, class_N, rank_N, each, config))


def _kept(classes: list[dict[str, Any]], class_N: Ints, inputs: Inputs) -> list[dict[str, Any]]:
    """Of each class the outputs of the method that stand for it, none if it came later, and how
    many crops it has had so far."""
    clusters = [[row["class_index"]] for row in classes]
    if inputs.has("curation"):
        class_of = Outputs.read(inputs.json("curation")).class_of
        clusters = [
            [n for n, c in enumerate(class_of) if c == index] for index in range(len(classes))
        ]
    sizes = np.bincount(class_N[class_N >= 0], minlength=len(classes)).tolist()
    if inputs.has("kept"):  # of the run before: clusters are classes there
        before = inputs.json("kept")
        sizes = [sum(before[cluster]["size"] for cluster in mine) for mine in clusters]
        clusters = [
            [o for cluster in mine for o in before[cluster]["outputs"]] for mine in clusters
        ]
    return [{"outputs": o, "size": n} for o, n in zip(clusters, sizes, strict=True)]


def _copy_method(members: Members, work: Work) -> None:
    """The method as it sorts; earlier weights of its training stay behind."""
    told = members.json("method")
    for name in dict.fromkeys([told["weights"], *told["others"]]):
        work.write_tensors(name, members.tensor_file(name).load())
    work.write_json("method", told | {"snapshots": []})


def _class_of_crops(inputs: Inputs) -> Ints:
    """Class (N,) of every crop that is at hand, -1 of none: those that the earlier run itself has
    kept come first, then its own."""
    own = inputs.table("assignments").read(["class_index", "cluster_id"])
    sorts = inputs.table("partition").read(["cluster_id"]) if inputs.has("partition") else own
    label_N, cluster_N = own["class_index"].to_numpy(), sorts["cluster_id"].to_numpy()
    parts = [np.where(label_N >= 0, label_N, cluster_N)]
    if inputs.has("kept_crops"):
        kept_N = inputs.table("kept_crops").read(["class_index"])["class_index"].to_numpy()
        if inputs.has("curation"):  # they were kept before people decided
            kept_N = np.array(Outputs.read(inputs.json("curation")).class_of)[kept_N]
        parts.insert(0, kept_N)
    return np.concatenate(parts).astype(np.int64)


def _ranks(class_N: Ints, seed: int) -> Ints:
    """Place of every crop in a random order of those of its class, far behind if it has none."""
    order = np.random.default_rng([seed, 4]).permutation(len(class_N))
    order = order[np.argsort(class_N[order], kind="stable")]
    order = order[class_N[order] >= 0]
    sizes = np.bincount(class_N[order])
    rank_N = np.full(len(class_N), np.iinfo(np.int64).max)
    rank_N[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank_N


def _read_crops(inputs: Inputs, class_N: Ints, rank_N: Ints, each: int, config: Config) -> pa.Table:
    """The first ``each`` crops of every class, the first few of them with their pictures."""
    found, first = [], 0
    if inputs.has("kept_crops"):
        kept = inputs.table("kept_crops").read()
        first = kept.num_rows
        rows = np.flatnonzero(rank_N[:first] < each)
        classes = pa.array(class_N[:first][rows].astype(np.int32))
        column = kept.schema.get_field_index("class_index")
        found.append(kept.take(rows).set_column(column, KEPT_CROPS.field("class_index"), classes))
    crops, embeddings = inputs.table("crops"), inputs.table("embeddings")
    for index in range(crops.num_shards):
        shown = crops.shard(index, ["crop_index", "jpeg", "mask_png"])
        here = slice(first, first + shown.num_rows)
        first += shown.num_rows
        rows = np.flatnonzero(rank_N[here] < each)
        if not len(rows):
            continue
        shown = shown.take(rows)
        hidden = pa.array(rank_N[here][rows] >= config.pictures_per_class)
        pictures = {
            name: pc.if_else(hidden, pa.scalar(None, pa.binary()), shown[name])  # pyright: ignore[reportAttributeAccessIssue]
            for name in ("jpeg", "mask_png")
        }
        columns = {
            "class_index": pa.array(class_N[here][rows].astype(np.int32)),
            "crop_index": shown["crop_index"],
            "embedding": embeddings.shard(index, ["embedding"])["embedding"].take(rows),
            **pictures,
        }
        found.append(pa.table(columns, schema=KEPT_CROPS))
    return pa.concat_tables(found)
