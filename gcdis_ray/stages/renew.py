"""renew: which candidates make new classes?

Crops of the earlier run's classes keep the ids that these have; candidates are joined to clusters,
and those that are classes come after them as "new 1", "new 2", ... What makes no class is left
without one. Every label is trusted by its rank within its class.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from gcdis_ray.clustering.reliability import classwise_rank_share
from gcdis_ray.config import StageConfig
from gcdis_ray.store.artifacts import Artifact, Size, Table
from gcdis_ray.store.members import Inputs, document, table
from gcdis_ray.store.schemas import ASSIGNMENTS, PARTITION, PSEUDO_LABELS

if TYPE_CHECKING:
    from torch import Tensor

    from gcdis_ray.methods.kept import KeptPoints
    from gcdis_ray.report.section import Section
    from gcdis_ray.report.view import RunView
    from gcdis_ray.runtime.base import Work

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ID = "renew"
VERSION = 1
TAKES = ("crops", "embeddings", "kept_crops", "kept_classes", "kept", "threshold", "sorted")
GIVES = (
    document("discovered_classes"),
    document("kept"),
    document("continued"),
    table("assignments", ASSIGNMENTS),
    table("partition", PARTITION),
    table("pseudo_labels", PSEUDO_LABELS),
)
SEEDED = True
_NEW = re.compile(r"new (\d+)")


class Config(StageConfig):
    """When candidates are a class. What the earlier run's classes are called completes it."""

    _names: dict[int, str] = PrivateAttr({})

    min_size: int = Field(5, ge=2, le=1_000_000, description="crops that make a class")
    max_candidates: int = Field(
        5_000,
        ge=10,
        le=20_000,
        description="candidates that are joined to clusters, at random; others go to the nearest "
        "of them. Time and memory grow with the square",
    )
    max_fitting: int = Field(
        50_000,
        ge=100,
        le=10_000_000,
        description="new crops of the earlier run's classes that candidates are compared with",
    )

    @property
    def names(self) -> Mapping[int, str]:
        """Of the earlier run's classes, by ``class_index``."""
        return self._names

    def key_fields(self) -> dict[str, Any]:
        return super().key_fields() | {"names": sorted(self._names.items())}


def named(config: Config, names: Mapping[int, str]) -> Config:
    """The config with the names that people gave."""
    completed = config.model_copy()
    completed._names = dict(names)
    return completed


def summary(artifact: Artifact) -> list[str]:
    told = artifact.json("continued")
    crops, old, candidates = (told[name] for name in ("crops", "assigned", "candidates"))
    largest = [row for row in told["classes"] if not row["new"] and row["crops"]]
    largest.sort(key=lambda row: -row["crops"])
    shown = ", ".join(f"{row['crops']:,} {row['name']}" for row in largest[:5])
    more = f", and {len(largest) - 5} classes more" if len(largest) > 5 else ""
    new = [row for row in told["classes"] if row["new"]]
    made = ", ".join(f"{row['crops']:,} {row['name']}" for row in new[:5])
    lines = [
        f"new crops              {crops:,}: {old:,} in classes of the earlier run"
        + (f" ({shown}{more})" if shown else ""),
        f"candidates             {candidates:,}, of which {told['left']:,} make no class",
        f"new classes            {len(new)}{f' ({made})' if new else ''}; old ids unchanged",
    ]
    if told["rejected"]:
        lines.append(f"like rejected classes  {told['rejected']:,} new crops, left without a class")
    return lines


def sections(view: RunView) -> Sequence[Section]:
    """The classes, and how they have drifted."""
    from gcdis_ray.report.class_sections import class_sections
    from gcdis_ray.report.continued_section import continued_section

    return [continued_section(view), *class_sections(view)]


def forecast(config: Config, inputs: Mapping[str, Size]) -> Size:
    """An assignment for every crop."""
    rows = inputs["sorted"].rows
    return Size(rows, 700 * rows, inputs["sorted"].bytes + inputs["embeddings"].bytes)


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Write all that is in ``GIVES``."""
    from gcdis_ray.clustering.newness import new_classes
    from gcdis_ray.methods.kept import NONE, KeptPoints

    old = [
        row | {"name": config.names.get(row["class_index"], row["name"])}
        for row in inputs.json("kept_classes")
    ]
    kept = KeptPoints.of(inputs.table("kept_crops"))
    limit = float(inputs.json("threshold")["value"])
    rows = inputs.table("sorted").read(["class_index", "probability", "distance"])
    class_N = rows["class_index"].to_numpy().astype(np.int64)
    distance_N = rows["distance"].to_numpy().astype(np.float64)
    candidate_N = (distance_N > limit) & (class_N != NONE)
    places = np.flatnonzero(candidate_N)
    fitting = np.flatnonzero(~candidate_N)
    drawn = np.sort(np.random.default_rng(work.seed).permutation(fitting)[: config.max_fitting])
    found = new_classes(
        _points(places, kept, inputs),
        kept.points_KC,
        kept.classes_K,
        _points(drawn, kept, inputs),
        min_size=config.min_size,
        most=config.max_candidates,
        share=len(drawn) / max(len(fitting), 1),
    )
    final = _Final(
        likely_N=class_N,
        class_N=np.where(candidate_N, NONE, class_N),
        probability_N=rows["probability"].to_numpy().astype(np.float64),
        fit_N=1 - distance_N / limit,
    ).with_new(places, found.cluster_N, found.own_N, found.old_N, len(old))
    classes = [*old, *_rows(old, found.num_classes)]
    work.write_json("discovered_classes", classes)
    sizes = np.bincount(final.class_N[final.class_N >= 0], minlength=len(classes)).tolist()
    before = inputs.json("kept")
    work.write_json("kept", _kept(before, sizes))
    work.map_shards(
        FinalRows(final, inputs.table("crops")),
        [inputs.table("crops"), inputs.table("sorted")],
        gives=("assignments", "partition", "pseudo_labels"),
    )
    work.write_json(
        "continued",
        {
            "crops": len(class_N),
            "assigned": int(((final.class_N >= 0) & ~candidate_N).sum()),
            "candidates": len(places),
            "left": int((found.cluster_N < 0).sum()),
            "rejected": int((class_N == NONE).sum()),
            "threshold": inputs.json("threshold"),
            "classes": _drift(classes, before, sizes, final.class_N, kept, inputs),
        },
    )


def _points(rows: Ints, kept: KeptPoints, inputs: Inputs) -> Tensor:
    """Of new crops, where the kept ones are."""
    import torch

    from gcdis_ray.data.crops.crop_vectors import read_vectors

    if not len(rows):
        return kept.points_KC[:0]
    vectors = read_vectors(inputs.table("embeddings"), torch.from_numpy(rows))
    return kept.space.place(vectors)


def _rows(old: Sequence[Mapping[str, Any]], num_new: int) -> list[dict[str, Any]]:
    """Class table of the new ones; an earlier continued run may have had some, too."""
    numbers = [int(m[1]) for row in old if (m := _NEW.fullmatch(row["name"]))]
    first = max(numbers, default=0) + 1
    return [
        dict(class_index=len(old) + n, name=f"new {first + n}", known=False, category_id=None)
        for n in range(num_new)
    ]


def _kept(before: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """``kept`` of the run as it is now: new classes have no output of the method."""
    grown = [
        {"outputs": row["outputs"], "size": row["size"] + size}
        for row, size in zip(before, sizes, strict=False)
    ]
    return grown + [{"outputs": [], "size": size} for size in sizes[len(before) :]]


@dataclass(frozen=True)
class _Final:
    """What is said of new crops, (N,) each.

    Args:
        likely_N: class of the earlier run, also of candidates.
        class_N: class, -1 of none.
        probability_N: in [0, 1].
        fit_N: how well the crop fits its class: comparable within a class.
    """

    likely_N: Ints
    class_N: Ints
    probability_N: Floats
    fit_N: Floats

    def with_new(
        self, places: Ints, cluster_M: Ints, own_M: Floats, old_M: Floats, first: int
    ) -> _Final:
        """Args:
        places: of candidates among all crops.
        cluster_M: new class of each, -1 of none, counted from 0.
        own_M, old_M: distances to the crops of that class and of others.
        first: class_index of the first new class.
        """
        made = cluster_M >= 0
        rows = places[made]
        class_N, fit_N = self.class_N.copy(), self.fit_N.copy()
        probability_N = self.probability_N.copy()
        class_N[rows] = first + cluster_M[made]
        probability_N[rows] = old_M[made] / (own_M[made] + old_M[made])
        fit_N[rows] = 1 - own_M[made] / old_M[made]
        return _Final(self.likely_N, class_N, probability_N, fit_N)


@dataclass(frozen=True)
class FinalRows:
    """Shard task: crops and ``sorted`` -> assignments, partition and pseudo_labels."""

    final: _Final
    crops: Table

    def open(self, device: str) -> Callable[..., Mapping[str, pa.Table]]:
        final = self.final
        rank_N = classwise_rank_share(final.fit_N, final.class_N)
        first = np.cumsum([0, *(shard.rows or 0 for shard in self.crops.shards)])

        def write(index: int, crops: pa.Table, told: pa.Table) -> Mapping[str, pa.Table]:
            here = slice(int(first[index]), int(first[index + 1]))
            class_n, probability_n = final.class_N[here], final.probability_N[here]
            made_n = (class_n >= 0) & (class_n != final.likely_N[here])
            ids, shares = told["topk_ids"].to_pylist(), told["topk_probabilities"].to_pylist()
            for row in np.flatnonzero(made_n).tolist():
                ids[row], shares[row] = [int(class_n[row])], [float(probability_n[row])]
            shown = np.where(class_n >= 0, class_n, [each[0] for each in ids] or class_n)
            assignments = {
                "crop_index": crops["crop_index"],
                "class_index": crops["class_index"],
                "cluster_id": pa.array(shown.astype(np.int32)),
                "topk_ids": pa.array(ids, pa.list_(pa.int32())),
                "topk_probabilities": pa.array(shares, pa.list_(pa.float32())),
                "embedding": told["embedding"],
            }
            some = class_n >= 0
            chosen = crops.filter(pa.array(some))
            labels = {
                "crop_index": chosen["crop_index"],
                "image_id": chosen["image_id"],
                "source_id": chosen["source_id"],
                "cluster_id": pa.array(class_n[some].astype(np.int32)),
                "probability": pa.array(probability_n[some].astype(np.float32)),
                "stability": pa.array(final.fit_N[here][some].astype(np.float32)),
                "reliability": pa.array(rank_N[here][some].astype(np.float32)),
            }
            partition = {
                "crop_index": crops["crop_index"],
                "cluster_id": pa.array(class_n.astype(np.int32)),
            }
            return {
                "assignments": pa.table(assignments, schema=ASSIGNMENTS),
                "partition": pa.table(partition, schema=PARTITION),
                "pseudo_labels": pa.table(labels, schema=PSEUDO_LABELS),
            }

        return write


def _drift(
    classes: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    class_N: Ints,
    kept: KeptPoints,
    inputs: Inputs,
) -> list[dict[str, Any]]:
    """Of every class: how many crops it has and had, their shares, and how far the mean of the new
    ones lies from that of the kept ones, in units of the spread of these (root mean square of their
    distances to their mean); None where it has too few."""
    import torch

    from gcdis_ray.methods.kept import class_means

    num = len(classes)
    new_CD = torch.zeros(num, kept.space.width, dtype=torch.float64)
    first = 0
    for shard in inputs.table("embeddings").iter_shards(["embedding"]):
        mine = torch.from_numpy(class_N[first : first + len(shard)])
        first += len(shard)
        rows = torch.nonzero(mine >= 0).flatten()
        if len(rows):
            points = kept.place(shard["embedding"])[rows].double()
            new_CD.index_add_(0, mine[rows], points)
    mean_CD, spread_C = class_means(kept.points_KC, kept.classes_K, len(before))
    earlier, total = sum(row["size"] for row in before), max(sum(sizes), 1)
    rows = []
    for index, (row, size) in enumerate(zip(classes, sizes, strict=True)):
        is_new, shift = index >= len(before), None
        if not is_new and size and spread_C[index] > 0:
            apart = (new_CD[index] / size - mean_CD[index]).norm()
            shift = float(apart / spread_C[index])
        had = 0 if is_new else before[index]["size"]
        rows.append(
            {
                "class_index": row["class_index"],
                "name": row["name"],
                "known": row["known"],
                "new": is_new,
                "crops": size,
                "crops_before": had,
                "share": size / total,
                "share_before": had / max(earlier, 1),
                "shift": shift,
            }
        )
    return rows
