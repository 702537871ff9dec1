"""A run whose crops are sorted, made up: the artifacts that naming reads, in a folder.

| class | is | unlabeled crops | labeled |
|---|---|---|---|
| 0 | cat, known | 6 | 2 |
| 1 | dog, known | 6 | 2 |
| 2 | novel 1: circles | 12 | |
| 3 | novel 2: squares | 12 | |
| 4 | novel 3: half triangles, half crosses | 24 | |
| 5 | novel 4: circles again | 8 | |
| 6 | novel 5, empty | 0 | |
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa

from gcdis_ray.run.opened import OpenedRun, note_run, open_run
from gcdis_ray.run.pipeline import Pipeline, load_config
from gcdis_ray.store.artifacts import FileRecord, Manifest
from gcdis_ray.store.schemas import ASSIGNMENTS, CROPS, PSEUDO_LABELS
from gcdis_ray.store.storage import LocalStorage, commit, encode_table, file_record

CONFIG = """
name: shapes
storage: {storage}
stages:
  ingest:
    root: {root}
    labeled: {{images: ., annotations: a.json}}
    unlabeled: {{images: .}}
    known_classes: [cat, dog]
  evaluate: {{mapping: {{source: train_gt}}}}
"""
SIZES = {0: (6, 2), 1: (6, 2), 2: (12, 0), 3: (12, 0), 4: (24, 0), 5: (8, 0)}
COLORS = {
    0: (150, 120, 90),
    1: (90, 120, 150),
    2: (214, 92, 56),
    3: (66, 133, 190),
    4: (120, 160, 60),
    5: (226, 120, 70),
}
CLASSES = [
    {"class_index": 0, "name": "cat", "known": True, "category_id": 7},
    {"class_index": 1, "name": "dog", "known": True, "category_id": 9},
    *(
        {"class_index": k, "name": f"novel {k - 1}", "known": False, "category_id": None}
        for k in range(2, 7)
    ),
]
_DIMENSIONS, _SHARDS = 16, 3


def write_run(folder: Path, *, pseudo_labels: bool = True) -> str:
    """Where the run is stored."""
    data, storage = folder / "data", LocalStorage(str(folder / "storage"))
    data.mkdir(parents=True)
    (data / "a.json").write_text('{"images": [], "annotations": [], "categories": []}')
    config = folder / "shapes.yaml"
    config.write_text(CONFIG.format(storage=storage.uri, root=data))
    note_run(Pipeline(load_config(config), sources={"ingest": "data", "ground_truth": "truth"}))
    run = open_run(storage.uri)
    crops, assignments, labels = _rows()
    _commit(run, "crop", {"crops": (crops, CROPS)}, {})
    tables = {"assignments": (assignments, ASSIGNMENTS)}
    _commit(run, "discover", tables, {"discovered_classes": CLASSES})
    if pseudo_labels:
        _commit(run, "label", {"pseudo_labels": (labels, PSEUDO_LABELS)}, {})
    return storage.uri


def crops_of_class(number: int) -> list[int]:
    """Unlabeled crops that discovery put there, most trusted first: by reliability, which falls
    with the number."""
    first = sum(sum(SIZES[k]) for k in range(number))
    num, num_labeled = SIZES[number]
    return list(range(first + num_labeled, first + num_labeled + num))


def _rows() -> tuple[list[dict], list[dict], list[dict]]:
    rng = np.random.default_rng(0)
    centers = {k: rng.normal(size=_DIMENSIONS) for k in SIZES}
    centers[5] = centers[2] + 0.3 * rng.normal(size=_DIMENSIONS)
    other_half = centers[4] + 0.9 * rng.normal(size=_DIMENSIONS)
    crops, assignments, labels = [], [], []
    for number, (num, num_labeled) in SIZES.items():
        for place in range(num_labeled + num):
            index = len(crops)
            label = number if place < num_labeled else -1
            second = number == 4 and place >= num // 2
            center = other_half if second else centers[number]
            vector = center + 0.12 * rng.normal(size=_DIMENSIONS)
            vector /= np.linalg.norm(vector)
            jpeg, png = _drawn(number, second, rng)
            ids = dict(crop_index=index, image_id=index // 2, source_id=100 + index)
            crops.append(
                dict(
                    **ids,
                    class_index=label,
                    window_xyxy=[0, 0, 48, 48],
                    bbox_xyxy=[8.0, 8.0, 40.0, 40.0],
                    jpeg=jpeg,
                    mask_png=png,
                )
            )
            assignments.append(
                dict(
                    crop_index=index,
                    class_index=label,
                    cluster_id=number,
                    topk_ids=[number],
                    topk_probabilities=[0.95 - 0.01 * place],
                    embedding=vector.tolist(),
                )
            )
            if label < 0:
                labels.append(
                    dict(
                        **ids,
                        cluster_id=number,
                        probability=0.95 - 0.01 * place,
                        stability=0.9,
                        reliability=1 - (place - num_labeled) / num,
                    )
                )
    return crops, assignments, labels


def _drawn(number: int, second: bool, rng: np.random.Generator) -> tuple[bytes, bytes]:
    """A shape and its mask."""
    picture = np.full((48, 48, 3), rng.integers(215, 240), np.uint8)
    mask = np.zeros((48, 48), np.uint8)
    x, y = rng.integers(21, 28, 2).tolist()
    if number in (2, 5, 0):
        cv2.circle(mask, (x, y), 12 + number, 255, -1)
    elif number in (3, 1):
        cv2.rectangle(mask, (x - 12, y - 12), (x + 12, y + 12), 255, -1)
    elif second:
        cv2.line(mask, (x - 12, y - 12), (x + 12, y + 12), 255, 7)
        cv2.line(mask, (x - 12, y + 12), (x + 12, y - 12), 255, 7)
    else:
        corners = np.array([[x, y - 15], [x - 14, y + 11], [x + 14, y + 11]])
        cv2.fillPoly(mask, [corners], 255)
    picture[mask > 0] = COLORS[number][::-1]
    return cv2.imencode(".jpg", picture)[1].tobytes(), cv2.imencode(".png", mask)[1].tobytes()


def _commit(run: OpenedRun, node: str, tables: dict, documents: dict) -> None:
    stage, key = run.graph[node].node.stage, run.keys[node]
    files: dict[str, list[FileRecord]] = {}

    def write(path: str, data: bytes, rows: int | None = None) -> FileRecord:
        run.storage.write(f"{stage.ID}/{key}/{path}", data)
        return file_record(path, data, rows)

    for name, (rows, schema) in tables.items():
        cuts = np.linspace(0, len(rows), _SHARDS + 1).astype(int).tolist()
        for number, (start, stop) in enumerate(pairwise(cuts)):
            data = encode_table(pa.Table.from_pylist(rows[start:stop], schema=schema))
            record = write(f"attempt-0/{name}/part-{number:05d}.parquet", data, stop - start)
            files.setdefault(name, []).append(record)
    for name, value in documents.items():
        files[name] = [write(f"attempt-0/{name}.json", json.dumps(value).encode())]
    commit(run.storage, Manifest(stage.ID, key, 1, {}, {}, 0, None, files))
