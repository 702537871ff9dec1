"""Predictions as files for people and other programs, streamed shard by shard.

They are written anew from the artifacts whenever images, limits, classes or names have changed.
``summary.json`` comes last and says what they were made of.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from gcdis_ray.applying.pictures import PictureRequest, draw_pictures
from gcdis_ray.applying.trained import Trained
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.run.pipeline import Pipeline
from gcdis_ray.store.artifacts import Artifact, Table, canonical_json
from gcdis_ray.store.schemas import BOX, schema
from gcdis_ray.store.storage import encode_table

RESULTS, IMAGES, SUMMARY = "results.json", "images.json", "summary.json"
TABLES, PICTURES = "predictions", "pictures"
_SHOWN = 5  # files set aside
_FORMAT = 1
_ROWS_PER_FILE = 50_000  # of a table, before the next shard is another file's
_AHEAD = 8  # shards that are read while one is written

PREDICTED = schema(
    image_id=pa.int64(),
    file_name=pa.string(),  # relative to the folder of images
    height_px=pa.int32(),
    width_px=pa.int32(),
    class_index=pa.int32(),
    category_id=pa.int64(),  # as in the JSON files
    name=pa.string(),
    known=pa.bool_(),
    score=pa.float32(),
    bbox_xyxy=BOX,
    mask_rle=pa.string(),  # COCO compressed RLE counts, size = the image's
)


class Outputs:
    """The files beside the artifacts of a run of recipe ``predict``.

    Args:
        pictures: none are asked for if None.
    """

    def __init__(
        self, pipeline: Pipeline, trained: Trained, pictures: PictureRequest | None
    ) -> None:
        self._pipeline, self._storage = pipeline, pipeline.storage
        self._trained, self._classes = trained, trained.classes
        self._wanted = pictures

    def summary(self) -> dict[str, Any]:
        """As it was written; empty if there is none."""
        try:
            found = json.loads(self._storage.read(SUMMARY))
        except (FileNotFoundError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def stale(self) -> bool:
        """Whether something that is asked for is not there as it should be."""
        told = self.summary()
        return not self._tables_stand(told) or not self._pictures_stand(told)

    def write(self, tell: Callable[[str], None]) -> dict[str, Any]:
        """Write what is not there, and the summary, which it returns.

        Args:
            tell: is told a line on how far it is.
        """
        told = self.summary()
        if not self._tables_stand(told):
            self._storage.write(SUMMARY, b"{}\n")  # nothing stands until all does
            self._storage.delete(TABLES)
            told = self._write_tables(tell)
            self._storage.delete(PICTURES)
        if self._wanted and not self._pictures_stand(told):
            self._storage.delete(PICTURES)
            number = draw_pictures(self._artifact("images"), self._artifact("predict"),
                self._classes, self._wanted, self._storage, PICTURES, tell)  # fmt: skip
            made_of = self._made_of_pictures()
            told = {**told, "pictures": {"drawn": number, "made_of": made_of}}
        self._storage.write(SUMMARY, (json.dumps(told, indent=1) + "\n").encode())
        return told

    def _tables_stand(self, told: dict[str, Any]) -> bool:
        if told.get("made_of") != self._made_of():
            return False
        try:
            for name in (RESULTS, IMAGES):
                self._storage.read_part(name, 0, 1)
        except FileNotFoundError:
            return False
        return len(self._storage.list(TABLES)) == told["files"]

    def _pictures_stand(self, told: dict[str, Any]) -> bool:
        if self._wanted is None:
            return True
        drawn = told.get("pictures") or {}
        if drawn.get("made_of") != self._made_of_pictures():
            return False
        return len(self._storage.list(PICTURES)) == drawn["drawn"]

    def _made_of(self) -> str:
        return _digest(
            {
                "format": _FORMAT,
                "keys": [node.key for node in self._pipeline.nodes.values()],
                "classes": [vars(its) for its in self._classes],
            }
        )

    def _made_of_pictures(self) -> str:
        assert self._wanted is not None
        return _digest([self._made_of(), vars(self._wanted)])

    def _artifact(self, node: str) -> Artifact:
        artifact = self._pipeline.artifact(node)
        assert artifact is not None, node  # the pipeline has been run
        return artifact

    def _write_tables(self, tell: Callable[[str], None]) -> dict[str, Any]:
        images, predict = self._artifact("images"), self._artifact("predict")
        listed, found = images.table("image_index"), predict.table("predictions")
        tables = _Parts(lambda number, table: self._storage.write(
            f"{TABLES}/part-{number:05d}.parquet", encode_table(table)))  # fmt: skip
        by_class, with_objects = Counter[int](), 0
        shards = zip(listed.iter_shards(ahead=_AHEAD), found.iter_shards(ahead=_AHEAD), strict=True)
        with (
            self._storage.writing(RESULTS) as results_file,
            self._storage.writing(IMAGES) as images_file,
        ):
            results = _JsonList(results_file)
            images_file.write(self._head())
            image_list = _JsonList(images_file)
            for number, (index, rows) in enumerate(shards, 1):
                image_list.add(json.dumps(_image(row)) for row in index.to_pylist())
                table = self._named(index, rows)
                results.add(_results(table))
                tables.add(table)
                by_class.update(rows["class_index"].to_pylist())
                with_objects += len(set(rows["image_id"].to_pylist()))
                tell(f"  files        {number}/{listed.num_shards} shards")
            results.close()
            image_list.close()
            images_file.write(b"}\n")
        tables.close()
        return {
            "format": _FORMAT,
            "model": self._trained.name,
            "images": listed.num_rows,
            "quarantined": images.table("quarantine").num_rows,
            "quarantine": _first_few(images.table("quarantine")),
            "images_with_predictions": with_objects,
            "predictions": found.num_rows,
            "files": tables.number,
            "classes": [{**vars(c), "predictions": by_class[c.class_index]} for c in self._classes],
            "pictures": None,
            "made_of": self._made_of(),
        }

    def _head(self) -> bytes:
        """``images.json`` until its list of images."""
        categories = [
            {
                "id": its.category_id,
                "name": its.name,
                "class_index": its.class_index,
                "known": its.known,
            }
            for its in self._classes
        ]
        about = {"description": f"images that {self._trained.name} was applied to"}
        head = {"info": about, "categories": categories, "annotations": []}
        return f'{json.dumps(head)[:-1]}, "images": '.encode()

    def _named(self, index: pa.Table, rows: pa.Table) -> pa.Table:
        """Predictions of a shard with names of files and classes."""
        uri_of = dict(zip(index["image_id"].to_pylist(), index["uri"].to_pylist(), strict=True))
        its = [self._classes[row] for row in rows["class_index"].to_pylist()]
        more = {
            "file_name": [uri_of[image_id] for image_id in rows["image_id"].to_pylist()],
            "category_id": [one.category_id for one in its],
            "name": [one.name for one in its],
            "known": [one.known for one in its],
        }
        return pa.table(
            [more[f.name] if f.name in more else rows[f.name] for f in PREDICTED], schema=PREDICTED
        )


class _Parts:
    """Tables put together to files of some size."""

    def __init__(self, write: Callable[[int, pa.Table], None]) -> None:
        self._write, self._held, self._rows, self.number = write, list[pa.Table](), 0, 0

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self._rows += table.num_rows
        if self._rows >= _ROWS_PER_FILE:
            self._flush()

    def close(self) -> None:
        """There is a file even without a row: its columns are known."""
        if self._rows or not self.number:
            self._flush()

    def _flush(self) -> None:
        self._write(self.number, pa.concat_tables(self._held))
        self._held, self._rows, self.number = [], 0, self.number + 1


class _JsonList:
    """A list as ``json.dump`` writes it, one record after another."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._before = file, b"["

    def add(self, records: Iterator[str]) -> None:
        for record in records:
            self._file.write(self._before + record.encode())
            self._before = b", "

    def close(self) -> None:
        self._file.write(b"[]" if self._before == b"[" else b"]")


def _image(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["image_id"],
        "file_name": row["uri"],
        "height": row["height_px"],
        "width": row["width_px"],
    }


def _results(table: pa.Table) -> Iterator[str]:
    """Records of COCO's results, as ``json.dump`` writes them: rows are many, so texts are made by
    the column. Numbers are the shortest that are read back as the same float32."""
    box_N4 = matrix(table["bbox_xyxy"])
    box_N4 = np.concatenate((box_N4[:, :2], box_N4[:, 2:] - box_N4[:, :2]), axis=1)
    boxes, scores = box_N4.astype("U16").tolist(), table["score"].to_numpy().astype("U16").tolist()
    names = ("image_id", "category_id", "height_px", "width_px", "mask_rle")
    columns = (table[name].to_pylist() for name in names)
    for box, score, image_id, category_id, height, width, rle in zip(
        boxes, scores, *columns, strict=True
    ):
        yield (
            f'{{"image_id": {image_id}, "category_id": {category_id}, "bbox": [{", ".join(box)}], '
            f'"score": {score}, "segmentation": {{"size": [{height}, {width}], '
            f'"counts": {json.dumps(rle)}}}}}'
        )


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _first_few(quarantine: Table) -> list[dict[str, str]]:
    """Files that were set aside, and why; the table has all of them."""
    found: list[dict[str, str]] = []
    for shard in quarantine.iter_shards(["uri", "reason"]):
        found += shard.slice(0, _SHOWN - len(found)).to_pylist()
        if len(found) == _SHOWN:
            break
    return found
