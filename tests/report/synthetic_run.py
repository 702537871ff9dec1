"""A made-up complete run, held in memory: scenes of digits, and what the stages might say of them.

Sizes are small and the outcome of learning is simulated (a noisy assignment), so that the report
can be tested and looked at without training anything.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from scene_tables import MemoryOpener
from tables import SCHEMAS

from gcdis_ray.masks import coco_rle
from gcdis_ray.recipes.gcdis import RECIPE
from gcdis_ray.report.page import write_report
from gcdis_ray.report.view import RunView
from gcdis_ray.run.report import offered_sections
from gcdis_ray.store.artifacts import Artifact, FileRecord, Manifest
from gcdis_ray.store.schemas import check_schema

ORDER = (
    "ingest",
    "propose",
    "crop",
    "embed",
    "count",
    "discover",
    "label",
    "segment",
    "ground_truth",
    "predict",
    "evaluate",
)
HEIGHT, WIDTH = 120, 160
NUM_KNOWN = 5


def artifact(
    stage: str,
    tables: dict[str, list[list[dict]]],
    documents: dict[str, Any],
    config: dict[str, Any] | None = None,
):
    """An artifact of the given tables (a list of shards of rows each) and JSON documents."""
    arrow = {
        member: [pa.Table.from_pylist(rows, schema=SCHEMAS[member]) for rows in shards]
        for member, shards in tables.items()
    }
    return _artifact(stage, arrow, documents, config or {})


def artifact_of(stage: str, tables: dict[str, dict[str, Any]], documents: dict[str, Any]):
    """An artifact of tables of one shard, given by columns, and JSON documents."""
    arrow = {
        member: [
            pa.table(
                [pa.array(columns[f.name]).cast(f.type) for f in SCHEMAS[member]],
                schema=SCHEMAS[member],
            )
        ]
        for member, columns in tables.items()
    }
    return _artifact(stage, arrow, documents, {})


def _artifact(
    stage: str,
    tables: dict[str, list[pa.Table]],
    documents: dict[str, Any],
    config: dict[str, Any],
):
    opener, files = MemoryOpener(), {}
    for member, shards in tables.items():
        files[member] = []
        for i, rows in enumerate(shards):
            path = f"{member}/{i}.parquet"
            table = check_schema(member, rows, SCHEMAS[member])
            opener.tables[path] = table
            files[member].append(FileRecord(path, table.nbytes, "0" * 64, table.num_rows))
    for member, value in documents.items():
        path = f"{member}.json"
        opener.files[path] = json.dumps(value).encode()
        files[member] = [FileRecord(path, len(opener.files[path]), "0" * 64)]
    key = hashlib.sha256(stage.encode()).hexdigest()[:24]
    manifest = Manifest(
        stage=stage,
        key=key,
        version=1,
        config=config,
        inputs={"ingest": "0" * 24} if stage != "ingest" else {},
        seed=0,
        source=None,
        files=files,
        counts={"rejected": 3} if stage == "crop" else {},
        versions={"gcdis_ray": "0.1.0", "torch": "2.15.0"},
    )
    return Artifact(manifest, opener)


def make_run(
    *,
    num_images: int = 20,
    name: str = "quickstart",
    class_names: tuple[str, ...] = tuple(str(d) for d in range(10)),
    seed: int = 0,
) -> RunView:
    """A finished run over ``num_images`` scenes; classes 0 to 4 are known."""
    rng = np.random.default_rng(seed)
    world = _World(rng, num_images)
    names = list(class_names)
    shards = world.shards
    known = [{"class_index": i, "category_id": i + 1, "name": names[i]} for i in range(NUM_KNOWN)]
    novel = [
        {"class_index": i, "name": f"new-{i - NUM_KNOWN + 1}", "known": False, "category_id": None}
        for i in range(NUM_KNOWN, 11)
    ]
    counts = {i: int((world.assigned == i).sum()) for i in range(11)}
    metrics = _metrics(names, counts)
    artifacts = {
        "ingest": artifact(
            "ingest",
            {
                "images": shards("images"),
                "instances": shards("instances"),
                "quarantine": [
                    [
                        {
                            "split": "unlabeled",
                            "uri": "a/b.jpg",
                            "reason": "truncated image: 412 bytes",
                        },
                        {
                            "split": "unlabeled",
                            "uri": "c.jpg",
                            "reason": "truncated image: 88 bytes",
                        },
                        {
                            "split": "labeled",
                            "uri": "d.png",
                            "reason": "annotation without image: 17",
                        },
                    ]
                ],
            },
            {"classes": known},
        ),
        "propose": artifact(
            "propose",
            {"proposals": shards("proposals"), "history": [_history(("loss", "lr"), 120, rng)]},
            {},
        ),
        "crop": artifact("crop", {"crops": shards("crops")}, {}),
        "embed": artifact("embed", {"embeddings": shards("embeddings")}, {}),
        "count": artifact(
            "count",
            {},
            {
                "class_count": {
                    "num_known": 5,
                    "num_novel": 6,
                    "num_classes": 11,
                    "interval": [9, 12],
                    "method": "k-means, accuracy on labeled crops",
                    "curve": [
                        {"num_classes": k, "score": 0.8 - 0.006 * (k - 10.5) ** 2}
                        for k in range(5, 19)
                    ],
                }
            },
        ),
        "discover": artifact(
            "discover",
            {
                "assignments": shards("assignments"),
                "headness": shards("headness"),
                "history": [
                    _history(
                        (
                            "loss",
                            "loss/contrastive",
                            "loss/supervised",
                            "loss/cluster",
                            "loss/prototype",
                            "learning_rate",
                            "temperature",
                            "cluster_entropy",
                        ),
                        400,
                        rng,
                    )
                ],
            },
            {
                "discovered_classes": [{**row, "known": True} for row in known] + novel,
            },
            config={
                "method": "gcdis",
                "gcdis": {
                    "training": {"steps": 400, "batch_size": 16},
                    "discovery": {"losses": {"clustering_from": 0.5}},
                },
            },
        ),
        "label": artifact("label", {"pseudo_labels": shards("pseudo_labels")}, {}),
        "segment": artifact(
            "segment", {"history": [_history(("loss", "loss/mask", "loss/box"), 200, rng)]}, {}
        ),
        "ground_truth": artifact(
            "ground_truth",
            {"truth_instances": [world.truth]},
            {
                "categories": [
                    {
                        "category_id": i + 1,
                        "name": names[i],
                        "known": i < NUM_KNOWN,
                        "class_index": i if i < NUM_KNOWN else -1,
                    }
                    for i in range(10)
                ]
            },
        ),
        "predict": artifact("predict", {"predictions": shards("predictions")}, {}),
        "evaluate": artifact("evaluate", {}, {"metrics": metrics}),
    }
    return RunView(
        name=name,
        recipe="gcdis",
        seed=0,
        config={"seed": 0, "stages": {"discover": {"steps": 400}}, "storage": {"uri": "runs/x"}},
        storage="runs/quickstart",
        stages=[
            {
                "name": stage,
                "key": artifacts[stage].key,
                "state": "done",
                "seconds": 12.5 * (i + 1),
                "rows": 1000 * (i + 1),
                "bytes": 123_456 * (i + 1),
                "uri": f"runs/quickstart/{stage}",
            }
            for i, stage in enumerate(ORDER)
        ],
        artifacts=artifacts,
    )


def page_of(view: RunView) -> str:
    """The page of a run of recipe gcdis."""
    stages = {node.name: node.stage for node in RECIPE.nodes}
    return write_report(view, offered_sections(stages, view)).page


def until(view: RunView, num_stages: int) -> RunView:
    """The same run stopped after its first ``num_stages`` stages."""
    there = ORDER[:num_stages]
    return RunView(
        view.name,
        view.recipe,
        view.seed,
        view.config,
        view.storage,
        [
            row
            if row["name"] in there
            else {**row, "state": "missing", "seconds": None, "rows": None, "bytes": None}
            for row in view.stages
        ],
        {name: view.artifacts[name] for name in there},
    )


def _metrics(names: list[str], counts: dict[int, int]) -> dict[str, Any]:
    purity = [0.97, 0.91, 0.95, 0.88, 0.9, 0.86, 0.82, 0.93, 0.71, 0.66, 0.41]
    per_class = [
        {
            "category_id": i + 1,
            "name": names[i],
            "known": i < NUM_KNOWN,
            "num_objects": 20 + i,
            "frequency": ("tail", "mid", "head")[(i >= 3) + (i >= 6)],
            "num_crops": 18 + i,
            "num_training_crops": 20 + 30 * i,
            "headness": 0.01 + 0.002 * i,
            "temperature": 0.07 + 0.01 * i,
            "accuracy": round(0.95 - 0.03 * i, 3),
            "mask_ap": round(0.62 - 0.04 * i, 3),
            "box_ap": round(0.66 - 0.04 * i, 3),
        }
        for i in range(10)
    ]
    bins = [
        {"from": b / 10, "to": (b + 1) / 10, "num_crops": 16, "accuracy": 0.5 + 0.048 * b}
        for b in range(10)
    ]
    return {
        "discovery": {
            "accuracy": {"all": 0.83, "known": 0.91, "novel": 0.74},
            "num_crops_scored": 2345,
            "objects_with_crop": {"all": 0.62, "known": 0.67, "novel": 0.55},
            "found_and_sorted": {"all": 0.51, "known": 0.61, "novel": 0.41},
            "placed_accuracy": {"all": 0.85, "known": 0.9, "novel": 0.78},
            "placed_accuracy_hungarian": {"all": 0.87, "known": 0.9, "novel": 0.8},
            "ss_kmeans_accuracy": {"all": 0.68, "known": 0.88, "novel": 0.47},
            "kmeans_named_accuracy": {"all": 0.54, "known": 0.57, "novel": 0.52},
            "kmeans_accuracy": {"all": 0.56, "known": 0.58, "novel": 0.53},
            "accuracy_by_frequency": {"head": 0.89, "mid": 0.78, "tail": 0.61},
            "kmeans_accuracy_by_frequency": {"head": 0.7, "mid": 0.5, "tail": 0.13},
            "nmi": 0.77,
            "ari": 0.7,
            "protocol": {
                "accuracy": "known_identity: known classes stand for themselves",
                "kmeans_accuracy": "hungarian_all: one matching over all classes",
            },
            "reason": None,
        },
        "proposals": {
            "mask_ar10": {"all": 0.31, "known": 0.35, "novel": 0.27},
            "mask_ar10_by_size": {"small": 0.11, "medium": 0.36, "large": None},
            "mask_ar100": {"all": 0.48, "known": 0.49, "novel": 0.43},
            "box_ar10": {"all": None, "known": None, "novel": None},
            "protocol": {"mask": "COCO, class-agnostic", "box": "not scored"},
            "reason": None,
        },
        "detection": {
            "mask_ap": {"all": 0.44, "known": 0.54, "novel": 0.034},
            "box_ap": {"all": 0.48, "known": 0.58, "novel": 0.038},
            "ap_by_frequency": {"mask": {"r": 0.013, "c": 0.25, "f": 0.5}, "box": None},
            "rules": "lvis",
            "protocol": {"mask": "LVIS AP, IoU .50:.05:.95, 300 detections per image"},
            "mapping": {"protocol": "as in RNCDL: one assignment <over all>"},
            "reason": None,
        },
        "class_count": {"estimate": 11, "truth": 10},
        "per_class": per_class,
        "reliability_bins": bins,
        "stability_bins": [{**b, "from": 10.0 ** (b["from"] * 6)} for b in bins],
        "probability_bins": [{**b, "mean": b["to"] - 0.03} for b in bins],
        "trust": {
            "accuracy": 0.72,
            "calibration_error": 0.087,
            "auroc": {"probability": 0.84, "stability": 0.83, "reliability": 0.74},
        },
        "clusters": [
            {
                "class_index": i,
                "size": counts[i],
                "purity": purity[i],
                "majority_category_id": min(i, 9) + 1,
                "mapped_category_id": i + 1 if i < 10 else None,
                "mean_reliability": 0.5,
            }
            for i in range(11)
        ],
    }


def _history(names: tuple[str, ...], steps: int, rng: np.random.Generator) -> list[dict]:
    rows = []
    for k, name in enumerate(names):
        noise = rng.normal(0, 0.08, steps)
        for step in range(steps):
            value = (2 - 0.2 * k) * np.exp(-step / (0.3 * steps)) + 0.3 + noise[step]
            rows.append({"step": step, "name": name, "value": float(value)})
    return rows


class _World:
    """Scenes with digits, their true objects, and everything stages derive from them."""

    def __init__(self, rng: np.random.Generator, num_images: int) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self._rng = rng
        self._pictures, self._labels = digits.images, digits.target
        self._rows: dict[str, list[list[dict]]] = {}
        self.truth: list[dict] = []
        assigned: list[int] = []
        parts = np.array_split(np.arange(num_images), [num_images // 4, num_images // 2, -6])
        splits = ("labeled", "unlabeled", "unlabeled", "validation")
        centres = rng.normal(size=(11, 16))
        crop_index = 0
        for numbers, split in zip(parts, splits, strict=True):
            shard: dict[str, list[dict]] = {
                member: []
                for member in [
                    "images",
                    "instances",
                    "proposals",
                    "crops",
                    "embeddings",
                    "assignments",
                    "headness",
                    "pseudo_labels",
                    "predictions",
                ]
            }
            for image_id in numbers.tolist():
                pixels, objects = self._scene(split)
                shard["images"].append(_image_row(image_id, pixels, split))
                for label, mask in objects:
                    object_id = image_id * 100 + len(shard["crops"])
                    shape = _shape(mask)
                    note = dict(
                        instance_id=object_id,
                        image_id=image_id,
                        category_id=label + 1,
                        class_index=label if label < NUM_KNOWN else -1,
                        iscrowd=False,
                        **shape,
                    )
                    if split == "labeled":
                        if label >= NUM_KNOWN:
                            continue
                        shard["instances"].append(note)
                    else:
                        self.truth.append({**note, "split": split})
                        origin = {"objectness": float(rng.uniform(0.5, 1)), "origin": "model"}
                        shard["proposals"].append(
                            dict(proposal_id=object_id, image_id=image_id, **shape, **origin)
                        )
                    guess = self._guess(label)
                    if split == "validation":
                        box = {k: v for k, v in shape.items() if k != "area_px"}
                        score = float(rng.uniform(0.3, 0.98))
                        shard["predictions"].append(
                            dict(image_id=image_id, class_index=guess, score=score, **box)
                        )
                        continue
                    given = label if split == "labeled" else -1
                    shard["crops"].append(
                        _crop_row(crop_index, image_id, object_id, given, pixels, mask)
                    )
                    sure = float(rng.uniform(0.9, 1) if guess == label else rng.uniform(0.3, 0.8))
                    embeddings = [
                        _unit(centres[c] + rng.normal(0, s, 16))
                        for c, s in ((label, 1), (guess, 0.5))
                    ]
                    shard["embeddings"].append(
                        {"crop_index": crop_index, "class_index": given, "embedding": embeddings[0]}
                    )
                    shard["assignments"].append(
                        {
                            "crop_index": crop_index,
                            "class_index": given,
                            "cluster_id": guess,
                            "topk_ids": [guess, (guess + 1) % 11],
                            "topk_probabilities": [sure, 1 - sure],
                            "embedding": embeddings[1],
                        }
                    )
                    shard["headness"].append(
                        {
                            "crop_index": crop_index,
                            "temperature": 0.3 - 0.02 * guess,
                            "headness": 0.05 - 0.004 * guess + 0.001 * (crop_index % 10),
                        }
                    )
                    if given < 0:
                        assigned.append(guess)
                        shard["pseudo_labels"].append(
                            {
                                "crop_index": crop_index,
                                "image_id": image_id,
                                "source_id": object_id,
                                "cluster_id": guess,
                                "probability": sure,
                                "stability": min(1.0, sure + 0.05),
                                "reliability": sure,
                            }
                        )
                    crop_index += 1
            for member, rows in shard.items():
                self._rows.setdefault(member, []).append(rows)
        self.assigned = np.array(assigned)

    def shards(self, member: str) -> list[list[dict]]:
        return self._rows[member]

    def _guess(self, label: int) -> int:
        if self._rng.random() < 0.8:
            return label
        return int(self._rng.choice([label, 10, (label + 3) % 10, 9]))

    def _scene(self, split: str) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
        rng = self._rng
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        wave = np.sin(x * rng.uniform(0.05, 0.3) + y * rng.uniform(0.05, 0.3))
        pixels = (
            rng.uniform(40, 150, 3) + 22 * wave[..., None] + rng.normal(0, 7, (HEIGHT, WIDTH, 3))
        )
        objects = []
        for cell in rng.permutation(12)[: rng.integers(5, 9)].tolist():
            choice = int(rng.integers(len(self._labels)))
            size = int(rng.integers(24, 39))
            glyph = Image.fromarray((self._pictures[choice] * 15.9).astype(np.uint8))
            glyph = glyph.resize((size, size), Image.Resampling.BICUBIC)
            glyph = np.asarray(glyph.rotate(float(rng.uniform(-20, 20)))) / 255.0
            top, left = (cell // 4) * 40, (cell % 4) * 40
            here = np.s_[top : top + size, left : left + size]
            color = rng.uniform(120, 255, 3)
            pixels[here] = pixels[here] * (1 - glyph[..., None]) + color * glyph[..., None]
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[here] = glyph > 0.35
            objects.append((int(self._labels[choice]), mask))
        return pixels.clip(0, 255).astype(np.uint8), objects


def _image_row(image_id: int, pixels: np.ndarray, split: str) -> dict:
    return {
        "image_id": image_id,
        "uri": f"{image_id}.jpg",
        "bytes": _encode(pixels, "JPEG"),
        "turn": 1,
        "height_px": HEIGHT,
        "width_px": WIDTH,
        "sha256": "0" * 64,
        "split": split,
    }


def _crop_row(
    crop_index: int, image_id: int, source_id: int, class_index: int, pixels, mask
) -> dict:
    ys, xs = np.nonzero(mask)
    x0, y0 = max(0, xs.min() - 5), max(0, ys.min() - 5)
    x1, y1 = min(WIDTH, xs.max() + 6), min(HEIGHT, ys.max() + 6)
    return {
        "crop_index": crop_index,
        "image_id": image_id,
        "source_id": source_id,
        "class_index": class_index,
        "window_xyxy": [int(v) for v in (x0, y0, x1, y1)],
        "bbox_xyxy": [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)],
        "jpeg": _encode(pixels[y0:y1, x0:x1], "JPEG"),
        "mask_png": _encode(mask[y0:y1, x0:x1].astype(np.uint8) * 255, "PNG"),
    }


def _shape(mask: np.ndarray) -> dict:
    ys, xs = np.nonzero(mask)
    return {
        "bbox_xyxy": [float(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)],
        "mask_rle": coco_rle.encode(mask),
        "height_px": HEIGHT,
        "width_px": WIDTH,
        "area_px": float(mask.sum()),
    }


def _encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=92)
    return buffer.getvalue()


def _unit(vector: np.ndarray) -> list[float]:
    return (vector / np.linalg.norm(vector)).tolist()
