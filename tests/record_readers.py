"""What the readers of annotations and results make of a file: their words, or None if they take it.

Ingest and ground truth read annotations as one; external masks and bare files read results.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from coco_folder import HEIGHT, WIDTH, square

from gcdis_ray.data.formats.open_file import open_file
from gcdis_ray.data.sets.annotations import Selection
from gcdis_ray.data.sets.image_list import ImageList, SourceImage
from gcdis_ray.errors import GcdisError
from gcdis_ray.files.json_file import JsonFile
from gcdis_ray.instances.external_masks import EXTERNAL_MASKS, ImportMasks, _batches
from gcdis_ray.masks import coco_rle
from gcdis_ray.metrics.ap_rows import Totals, match_images
from gcdis_ray.metrics.files.coco_files import read_ground_truth
from gcdis_ray.metrics.files.coco_results import read_results
from gcdis_ray.metrics.files.file_scores import evaluate_files
from gcdis_ray.records.results import results_section
from gcdis_ray.store.source import open_source


def small_truth() -> dict[str, Any]:
    """Three images of one size, two classes, an object of every form of mask."""
    full = np.zeros((HEIGHT, WIDTH), np.bool_)
    full[5:15, 20:30] = True
    rle = coco_rle.encode(full)
    masks: list[Any] = [
        square(3, 5, 10),
        {"size": [HEIGHT, WIDTH], "counts": rle},
        {"size": [HEIGHT, WIDTH], "counts": coco_rle.counts_from_rle(rle).tolist()},
        None,
    ]
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in (1, 2, 3)
        ],
        "annotations": [
            {"id": n, "image_id": 1 + n % 2, "category_id": 1 + n % 2, "area": 100, "iscrowd": 0,
             "bbox": [3 if n == 1 else 20, 5, 10, 10], "segmentation": mask}
            for n, mask in enumerate(masks, 1)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }  # fmt: skip


def small_results() -> list[dict[str, Any]]:
    """A detection for every object with a mask."""
    return [
        {name: row[name] for name in ("image_id", "category_id", "bbox", "segmentation")}
        | {"score": 0.25 * n}
        for n, row in enumerate(small_truth()["annotations"])
        if row["segmentation"]
    ]


def read_as_ingest(folder: Path, name: str) -> list[str]:
    """Why annotations are turned down, one by one.

    Raises:
        GcdisError: the file cannot be read.
    """
    source = open_file(open_source(str(folder)), name)
    records = list(source.images())
    images = ImageList(
        SourceImage(r.image_id, r.file_name, r.height_px, r.width_px, r.image_id) for r in records
    )
    listed = np.sort(np.array([r.image_id for r in records], dtype=np.int64))
    chosen = Selection(source, images, listed, None)
    return [row[-1] for rows in chosen.checked() for row in rows if row[-1] is not None]


def read_as_masks(folder: Path, name: str) -> list[str]:
    """Why entries of a results file are refused as masks, one by one; those of other images are
    passed over.

    Raises:
        GcdisError: the file cannot be read.
    """
    file = JsonFile(open_source(str(folder)), name)
    truth = small_truth()
    images = [
        {"image_id": row["id"], "height_px": HEIGHT, "width_px": WIDTH} for row in truth["images"]
    ]
    run = ImportMasks(0, 100).open("cpu")
    refused: list[str] = []
    for ids, entries in _batches(file, results_section(file)):
        rows = [
            {"shard": 0, "position": n, "image_id": image_id, "entry": entry}
            for n, (image_id, entry) in enumerate(zip(ids.tolist(), entries, strict=True))
            if image_id in (-1, 1, 2, 3)
        ]
        table = pa.Table.from_pylist(rows, schema=EXTERNAL_MASKS)
        refused += run(0, pa.Table.from_pylist(images), table)["quarantine"]["reason"].to_pylist()
    return refused


Said = str | list[str] | None


def judge_truth(folder: Path, content: bytes, name: str, whole: bool = False) -> dict[str, Said]:
    """What the readers of annotations say.

    Args:
        name: of the file to write: what changes under one name may be read from memory.
        whole: compute average precision, too, and not only who meets whom.

    Returns:
        ``evaluate`` and ``ingest``: a message about the file, messages about its annotations, or
        nothing at all.
    """
    path, results = folder / name, folder / "good_results.json"
    path.write_bytes(content)
    if not results.exists():
        results.write_text(json.dumps(small_results()))
    try:
        return {
            "evaluate": _said(lambda: _score(path, results, whole)),
            "ingest": _said(lambda: read_as_ingest(folder, name)),
        }
    finally:
        path.unlink()


def judge_results(folder: Path, content: bytes, name: str, whole: bool = False) -> dict[str, Said]:
    """What the readers of results say: ``evaluate`` and ``masks``. Args: as :func:`judge_truth`."""
    path, truth = folder / name, folder / "good_truth.json"
    path.write_bytes(content)
    if not truth.exists():
        truth.write_text(json.dumps(small_truth()))
    try:
        return {
            "evaluate": _said(lambda: _score(truth, path, whole)),
            "masks": _said(lambda: read_as_masks(folder, name)),
        }
    finally:
        path.unlink()


def _score(truth: Path, results: Path, whole: bool) -> None:
    if whole:
        json.dumps(evaluate_files(truth, results))
        return
    file = read_ground_truth(truth)
    found = read_results(results, file)
    match_images(file.truth, found, Totals.of(file.truth, found).kinds())


def _said(read: Callable[[], Said]) -> Said:
    try:
        return read()
    except GcdisError as error:
        return str(error)
