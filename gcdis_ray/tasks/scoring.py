"""The numbers of a run, from its artifacts and the ground truth: the metrics document.

Keys that others script against, always there (null where they cannot be had, and ``reason`` says
why): ``discovery.accuracy``, ``discovery.kmeans_accuracy``, ``detection.mask_ap`` and
``detection.box_ap``, each ``{all, known, novel}`` in [0, 1];
``discovery.accuracy_by_frequency``, ``{head, mid, tail}`` in [0, 1];
``class_count.{estimate, truth}``; ``class_count.discovered`` is the number of classes that discover
told apart, known ones included: the estimate, unless it trained more outputs or pruned some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from gcdis_ray.artifacts import Artifact, Table
from gcdis_ray.clustering.kmeans import kmeans, nearest
from gcdis_ray.data.crop_store import decode_crops
from gcdis_ray.metrics import discovery, trust
from gcdis_ray.metrics.detection import evaluate_tables
from gcdis_ray.metrics.frequency import NO_THIRDS, accuracy_by_third, frequency_thirds
from gcdis_ray.metrics.matching import Scope, count_matrix, match_clusters
from gcdis_ray.tasks.crop_truth import CropTruth, detection_counts, match_crops, true_objects

Ints = NDArray[np.int64]
NO_TRUTH = "no ground truth for {} images"
MAX_KMEANS_CROPS = 100_000  # the baseline finds its centers on at most so many
PIXEL_SIDE_PX = 16


@dataclass(frozen=True)
class Settings:
    """See the stage's config."""

    mapping_source: Literal["train_gt", "detections"]
    mapping_scope: Scope
    match_iou: float
    kmeans_n_init: int
    kmeans_on_pixels: bool


class Scorer:
    """Scores one run. Classes are columns: the ground truth's categories by rising id."""

    def __init__(
        self, inputs: Mapping[str, Artifact], predictions: pa.Table, settings: Settings, seed: int
    ) -> None:
        self._inputs, self._predictions = inputs, predictions
        self._settings, self._seed = settings, seed
        sealed = inputs["ground_truth"]
        self._categories = sorted(sealed.json("categories"), key=lambda c: c["category_id"])
        self._truth = sealed.table("truth_instances").read()
        self._truth_images = sealed.table("truth_images").read(["image_id", "split"])
        self._column_of = {c["category_id"]: n for n, c in enumerate(self._categories)}
        self._known = [n for n, c in enumerate(self._categories) if c["known"]]
        self._fixed = {  # output of a known class -> column
            row["class_index"]: self._column_of[row["category_id"]]
            for row in inputs["ingest"].json("classes")
            if row["category_id"] in self._column_of
        }
        self._outputs = inputs["discover"].json("discovered_classes")
        self._crop_truth = match_crops(
            inputs["crop"].table("crops"),
            inputs["propose"].table("proposals"),
            true_objects(self._truth, "unlabeled"),
            settings.match_iou,
        )
        objects = self._crop_truth.objects_per_category
        self._thirds = frequency_thirds({self._column_of[c]: n for c, n in objects.items()})

    def metrics(self) -> dict[str, Any]:
        """The whole document, plain JSON."""
        crops, pseudo = self._crop_truth, self._pseudo_labels()
        matched = crops.category_N >= 0
        discovered, named_N = self._discovery(matched)
        mapping, mapping_info = self._mapping(pseudo)
        scores, detection = self._detection(mapping, mapping_info)
        return {
            "discovery": discovered,
            "detection": detection,
            "class_count": self._class_count(),
            "coverage": self._coverage(crops, matched),
            "per_class": self._per_class(named_N, matched, scores),
            "clusters": self._clusters(mapping, pseudo, matched),
            **self._trust(mapping, pseudo),
        }

    # ------------------------------------------------------------ crops and clusters

    def _true_columns(self, chosen_N: NDArray[np.bool_]) -> Ints:
        column = [self._column_of[c] for c in self._crop_truth.category_N[chosen_N].tolist()]
        return np.array(column, dtype=np.int64)

    def _discovery(self, matched: NDArray[np.bool_]) -> tuple[dict[str, Any], Ints]:
        """The ``discovery`` block, and the column each crop was named as (-1 for none)."""
        assignments = self._inputs["discover"].table("assignments")
        cluster_N = _dense(assignments, "cluster_id", len(matched))
        result: dict[str, Any] = {
            "accuracy": discovery.NOTHING,
            "accuracy_hungarian": discovery.NOTHING,
            "kmeans_accuracy": discovery.NOTHING,
            "kmeans_pixels_accuracy": discovery.NOTHING,
            "accuracy_by_frequency": NO_THIRDS,
            "kmeans_accuracy_by_frequency": NO_THIRDS,
            "nmi": None,
            "ari": None,
            "num_clusters_used": len(np.unique(cluster_N[self._crop_truth.unlabeled_N])),
            "num_crops_scored": int(matched.sum()),
            "protocol": {
                "accuracy": f"known_identity: {discovery.PROTOCOLS['known_identity']}",
                "accuracy_hungarian": f"hungarian_all: {discovery.PROTOCOLS['hungarian_all']}",
                "kmeans_accuracy": f"hungarian_all: {discovery.PROTOCOLS['hungarian_all']}",
                "accuracy_by_frequency": "classes by number of true unlabeled objects, in thirds: "
                "share of right crops, matched as for accuracy",
                "crops": "crops of unlabeled training images matched one-to-one to a true object "
                f"at IoU >= {self._settings.match_iou:g}; all others are left out",
            },
            "reason": None,
        }
        named_N = np.full(len(matched), -1, dtype=np.int64)
        if not matched.any():
            result["reason"] = (
                "no crop matches a true object"
                if self._crop_truth.num_objects
                else NO_TRUTH.format("unlabeled")
            )
            return result, named_N
        class_N, cluster = self._true_columns(matched), cluster_N[matched]
        size, known = len(self._categories), self._known
        result["accuracy"], mapping = discovery.clustering_accuracy(
            cluster, class_N, size, known, self._fixed
        )
        named_N = discovery.named_classes(cluster_N, mapping)
        result["accuracy_hungarian"], _ = discovery.clustering_accuracy(
            cluster, class_N, size, known
        )
        result["accuracy_by_frequency"] = accuracy_by_third(
            named_N[matched] == class_N, class_N, self._thirds
        )
        result |= discovery.agreement(cluster, class_N)
        for name, points in (
            ("kmeans_accuracy", self._embeddings()),
            ("kmeans_pixels_accuracy", self._pixels(len(matched))),
        ):
            if points is not None:
                baseline = self._kmeans(points)[matched]
                result[name], mapping = discovery.clustering_accuracy(
                    baseline, class_N, size, known
                )
                if name == "kmeans_accuracy":
                    right = discovery.named_classes(baseline, mapping) == class_N
                    result["kmeans_accuracy_by_frequency"] = accuracy_by_third(
                        right, class_N, self._thirds
                    )
        return result, named_N

    def _embeddings(self) -> torch.Tensor:
        column = self._inputs["embed"].table("embeddings").read(["embedding"])["embedding"]
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return torch.tensor(flat.reshape(len(column), -1))

    def _pixels(self, num_crops: int) -> torch.Tensor | None:
        if not self._settings.kmeans_on_pixels or num_crops > MAX_KMEANS_CROPS:
            return None
        parts = [torch.zeros(0, 3 * PIXEL_SIDE_PX**2)]
        for shard in self._inputs["crop"].table("crops").iter_shards(["jpeg", "mask_png"]):
            images, _ = decode_crops(
                shard["jpeg"].to_pylist(), shard["mask_png"].to_pylist(), PIXEL_SIDE_PX
            )
            parts.append(images.flatten(1).float() / 255)
        return torch.cat(parts)

    def _kmeans(self, points_ND: torch.Tensor) -> Ints:
        """Clusters of all crops, labeled or not, without any label: as many as were discovered."""
        generator = torch.Generator().manual_seed(self._seed)
        sample = points_ND
        if len(points_ND) > MAX_KMEANS_CROPS:
            chosen = torch.randperm(len(points_ND), generator=generator)[:MAX_KMEANS_CROPS]
            sample = points_ND[chosen.sort().values]
        wanted = min(len(self._outputs), len(sample))
        found = kmeans(sample, wanted, generator, n_init=self._settings.kmeans_n_init)
        return nearest(points_ND, found.centers_KD)[0].numpy()

    # ------------------------------------------------------------ detections

    def _pseudo_labels(self) -> dict[str, NDArray[Any]]:
        table = self._inputs["label"].table("pseudo_labels")
        rows = table.read(["crop_index", "class_index", "probability", "stability", "reliability"])
        return {name: rows[name].to_numpy() for name in rows.column_names}

    def _mapping(self, pseudo: Mapping[str, NDArray[Any]]) -> tuple[dict[int, int], dict[str, Any]]:
        """Segmenter class -> column, and how it was found."""
        settings, source = self._settings, self._settings.mapping_source
        num_outputs = 1 + max(
            [*self._fixed, *(row["class_index"] for row in self._outputs)], default=-1
        )
        category_N = self._crop_truth.category_N[pseudo["crop_index"]]
        note = None
        if source == "train_gt" and not (category_N >= 0).any():
            source, note = "detections", NO_TRUTH.format("unlabeled") + " to map by"
        if source == "train_gt":
            keep = category_N >= 0
            columns = np.array([self._column_of[c] for c in category_N[keep].tolist()], np.int64)
            counts = count_matrix(
                pseudo["class_index"][keep], columns, num_outputs, len(self._categories)
            )
        else:
            counts = detection_counts(
                self._predictions,
                true_objects(self._truth, "validation"),
                self._column_of,
                num_outputs,
                settings.match_iou,
            )
        mapping = match_clusters(counts, self._fixed, settings.mapping_scope)
        names = {k: self._categories[n]["category_id"] for k, n in sorted(mapping.items())}
        return mapping, {
            "source": source,
            "scope": settings.mapping_scope,
            "note": note,
            "class_to_category": {str(k): category for k, category in names.items()},
        }

    def _detection(
        self, mapping: Mapping[int, int], mapping_info: dict[str, Any]
    ) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """Full scores, and the ``detection`` block."""
        block: dict[str, Any] = dict.fromkeys(
            ("mask_ap", "box_ap", "mask_ap50", "box_ap50"), discovery.NOTHING
        )
        block |= {"scores": None, "protocol": None, "mapping": mapping_info, "reason": None}
        images = self._of_split(self._truth_images, "validation")["image_id"].to_pylist()
        truth = self._of_split(self._truth, "validation")
        if not truth.num_rows:
            return None, block | {"reason": NO_TRUTH.format("validation")}
        wanted = pc.is_in(self._predictions["image_id"], value_set=pa.array(images, pa.int64()))  # pyright: ignore[reportAttributeAccessIssue]
        scores = evaluate_tables(
            images,
            truth,
            self._predictions.filter(wanted),
            self._categories,
            {k: self._categories[n]["category_id"] for k, n in mapping.items()},
        )
        for kind in ("mask", "box"):
            if scores[kind] is not None:
                for key, name in (("AP", f"{kind}_ap"), ("AP50", f"{kind}_ap50")):
                    block[name] = {
                        "all": scores[kind][key],
                        "known": scores[kind]["known"][key],
                        "novel": scores[kind]["novel"][key],
                    }
        block["scores"] = {"mask": scores["mask"], "box": scores["box"], **scores["counts"]}
        block["protocol"] = scores["protocol"]
        return scores, block

    def _of_split(self, table: pa.Table, split: str) -> pa.Table:
        return table.filter(pc.equal(table["split"], split))  # pyright: ignore[reportAttributeAccessIssue]

    # ------------------------------------------------------------ tables

    def _class_count(self) -> dict[str, Any]:
        estimate = self._inputs["count"].json("class_count")
        present = set(self._truth["category_id"].to_pylist())
        real = [c for c in self._categories if c["known"] or c["category_id"] in present]
        return {
            "estimate": estimate["num_classes"],
            "discovered": len(self._outputs),
            "truth": len(real) if present else None,
            "interval": estimate.get("interval"),
            "method": estimate.get("method"),
        }

    def _coverage(self, crops: CropTruth, matched: NDArray[np.bool_]) -> dict[str, Any]:
        total, unlabeled = crops.num_objects, int(crops.unlabeled_N.sum())
        return {
            "num_objects": total,
            "num_objects_with_proposal": crops.num_with_proposal,
            "num_objects_with_crop": crops.num_with_crop,
            "proposal_recall": crops.num_with_proposal / total if total else None,
            "crop_recall": crops.num_with_crop / total if total else None,
            "num_labeled_crops": len(matched) - unlabeled,
            "num_unlabeled_crops": unlabeled,
            "num_unlabeled_crops_matched": int(matched.sum()),
            "match_iou": self._settings.match_iou,
        }

    def _per_class(
        self, named_N: Ints, matched: NDArray[np.bool_], scores: dict[str, Any] | None
    ) -> list[dict[str, Any]]:
        class_N, named = self._true_columns(matched), named_N[matched]
        heat_of = self._heat(matched)
        ap = list(scores["per_class"].values()) if scores else None
        rows = []
        for column, category in enumerate(self._categories):
            mine = class_N == column
            rows.append(
                {
                    "category_id": category["category_id"],
                    "name": category["name"],
                    "known": category["known"],
                    "num_objects": self._crop_truth.objects_per_category.get(
                        category["category_id"], 0
                    ),
                    "frequency": self._thirds.get(column),
                    "num_crops": int(mine.sum()),
                    **heat_of[column],
                    "accuracy": float((named[mine] == column).mean()) if mine.any() else None,
                    "mask_ap": ap[column]["mask_ap"] if ap else None,
                    "box_ap": ap[column]["box_ap"] if ap else None,
                }
            )
        return rows

    def _heat(self, matched: NDArray[np.bool_]) -> list[dict[str, Any]]:
        """By column: the crops that discovery trained on, and their mean headness and temperature.

        Labeled crops are of the class they were given, unlabeled ones of the object they show.
        """
        assignments = self._inputs["discover"].table("assignments")
        rows = assignments.read(["crop_index", "class_index", "headness", "temperature"])
        order = np.argsort(rows["crop_index"].to_numpy())
        column_N = np.full(len(matched), -1, dtype=np.int64)
        column_N[matched] = self._true_columns(matched)
        for class_index, column in self._fixed.items():
            column_N[rows["class_index"].to_numpy()[order] == class_index] = column
        found = []
        for column in range(len(self._categories)):
            mine = column_N == column
            means = {
                name: float(rows[name].to_numpy()[order][mine].mean()) if mine.any() else None
                for name in ("headness", "temperature")
            }
            found.append({"num_training_crops": int(mine.sum()), **means})
        return found

    def _clusters(
        self,
        mapping: Mapping[int, int],
        pseudo: Mapping[str, NDArray[Any]],
        matched: NDArray[np.bool_],
    ) -> list[dict[str, Any]]:
        category_N = self._crop_truth.category_N[pseudo["crop_index"]]
        rows = []
        for output in self._outputs:
            mine = pseudo["class_index"] == output["class_index"]
            true = category_N[mine & (category_N >= 0)]
            values, sizes = np.unique(true, return_counts=True)
            column = mapping.get(output["class_index"])
            named = self._categories[column] if column is not None else None
            rows.append(
                {
                    "class_index": output["class_index"],
                    "name": output["name"],
                    "known": output["known"],
                    "size": int(mine.sum()),
                    "num_matched": len(true),
                    "purity": float(sizes.max() / sizes.sum()) if len(values) else None,
                    "majority_category_id": int(values[sizes.argmax()]) if len(values) else None,
                    "mapped_category_id": named["category_id"] if named else None,
                    "mapped_name": named["name"] if named else None,
                    "mean_reliability": float(pseudo["reliability"][mine].mean())
                    if mine.any()
                    else None,
                }
            )
        return rows

    def _trust(
        self, mapping: Mapping[int, int], pseudo: Mapping[str, NDArray[Any]]
    ) -> dict[str, Any]:
        """How right pseudo-labels are against what claims to tell right from wrong."""
        category_N = self._crop_truth.category_N[pseudo["crop_index"]]
        keep = category_N >= 0
        named = discovery.named_classes(pseudo["class_index"][keep].astype(np.int64), mapping)
        true = np.array([self._column_of[c] for c in category_N[keep].tolist()], dtype=np.int64)
        return trust.trust_scores(
            {name: pseudo[name][keep] for name in ("probability", "stability", "reliability")},
            named == true,
        )


def _dense(table: Table, column: str, size: int) -> Ints:
    """A column by crop_index."""
    rows = table.read(["crop_index", column])
    values = np.zeros(size, dtype=np.int64)
    values[rows["crop_index"].to_numpy()] = rows[column].to_numpy()
    return values
