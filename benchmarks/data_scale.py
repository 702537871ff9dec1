"""From annotation files to numbered crops and scores: sets of a thousand to 1.7 million images.

    python benchmarks/data_scale.py                           1,000, 10,000 and 100,000 images, LVIS
    python benchmarks/data_scale.py --images 1000 10000
    python benchmarks/data_scale.py --objects365              1.7 million images, 20 million boxes
    python benchmarks/data_scale.py --objects365 --images 10000 --over 1 10 40 160

The sets are synthetic (see ``scale_set.py``), their images links onto a few small files; each is
opened, decoded and hashed all the same. 30 % of the images are labeled (80 known classes), 30 %
unlabeled, 40 % for validation. One after another, each in a process of its own on the local
runtime with one thread:

ingest         the stage, keeping URIs, with ``fingerprint: stat``
ground_truth   the stage
crops          the numbering of crops; the true objects of unlabeled images are the proposals
match          20 detections a validation image (true objects, shifted by a pixel or so, and noise)
               to true objects
accumulate     curves of all classes from these, and the scores

Prints seconds, milliseconds an image of the set, how these compare to the smallest set's, and the
peak of memory that the process cannot give back (RssAnon) above what it held before, modules
imported. A step of a set of at most 1,000 images is the median of ``--rounds``. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import ijson.backends.yajl2_c  # noqa: F401  modules are loaded before the clock starts
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pycocotools.mask  # noqa: F401
from peak_memory import PeakMemory
from scale_set import HEIGHT, LVIS, OBJECTS365, WIDTH, Shape, write_set

with contextlib.suppress(ImportError):
    import pandas  # noqa: F401  pyarrow loads it when it first sees a list, if it is there

from gcdis_ray.evaluation.detection_curves import score_matches
from gcdis_ray.evaluation.detection_matches import MatchShard
from gcdis_ray.evaluation.scored_images import rules_of
from gcdis_ray.files.arrow_columns import matrix
from gcdis_ray.masks import coco_rle
from gcdis_ray.run.work import StageWork, local_work
from gcdis_ray.stages import crop, evaluate, ground_truth, ingest
from gcdis_ray.store.artifacts import Artifact, Manifest
from gcdis_ray.store.members import Inputs, schemas_of
from gcdis_ray.store.schemas import PREDICTIONS, PROPOSALS
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage

KNOWN, DETECTIONS, SMALL = 80, 20, 1_000
SCHEMAS = schemas_of((*ingest.GIVES, *ground_truth.GIVES, *evaluate.GIVES)) | {
    "proposals": PROPOSALS,
    "predictions": PREDICTIONS,
}


# ---------------------------------------------------------------- artifacts


class Bench:
    """Artifacts of the steps in a folder, without the pipeline around them."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.storage = LocalStorage(f"{folder}/storage")

    def work(self, step: str) -> StageWork:
        self.storage.delete(f"{step}/bench")
        return local_work(self.storage, SCHEMAS, base=f"{step}/bench")

    def save(self, step: str, work: StageWork) -> None:
        work.discard_spools()
        manifest = Manifest(step, "bench", 1, {}, {}, None, None, work.files, dict(work.counts))
        Path(self.folder, f"{step}.json").write_text(manifest.to_json())

    def load(self, step: str) -> Artifact:
        manifest = Manifest.from_json(Path(self.folder, f"{step}.json").read_text(), step)
        return Artifact(manifest, ArtifactOpener(self.storage, f"{step}/bench", SCHEMAS))

    def config(self) -> ingest.Config:
        def part(low: float, high: float) -> dict[str, Any]:
            return {"images": "images", "annotations": "all.json", "part": [low, high]}

        return ingest.Config.model_validate(
            {
                "root": self.folder,
                "labeled": part(0, 0.3),
                "unlabeled": part(0.3, 0.6),
                "validation": part(0.6, 1),
                "known_classes": list(range(1, KNOWN + 1)),
                "images_per_shard": 256,
                "store": "uri",
                "fingerprint": "stat",
            }
        )


# ---------------------------------------------------------------- steps


def run_stage(bench: Bench, stage: Any, name: str) -> None:
    work = bench.work(name)
    stage.run(Inputs({}), bench.config(), work)
    bench.save(name, work)


def number_crops(bench: Bench) -> None:
    found, proposals = bench.load("ingest"), bench.load("made").table("proposals")
    listed, instances = found.table("image_index"), found.table("instances")
    first = crop.number_crops(listed, instances, proposals, None, crop.Config.model_validate({}))
    assert first[-1] > listed.num_rows


def match(bench: Bench) -> None:
    made, truth, work = bench.load("made"), bench.load("ground_truth"), bench.work("match")
    tables = [made.table("predictions"), *map(truth.table, ("truth_images", "truth_instances"))]
    categories = truth.json("categories")
    task = MatchShard(
        category_ids=tuple(row["category_id"] for row in categories),
        class_to_category={n: row["category_id"] for n, row in enumerate(categories)},
        rules=rules_of(tables[1]),
    )
    work.map_shards(task, tables, gives=("matches", "object_counts", "match_totals"))
    bench.save("match", work)


def accumulate(bench: Bench, times: int = 1) -> None:
    """Args: times: as if the set had so many times the images: the same tables over and over."""
    truth, found, work = bench.load("ground_truth"), bench.load("match"), bench.work("accumulate")
    categories, rules = truth.json("categories"), rules_of(truth.table("truth_images"))
    tables = {
        name: replace(table, shards=table.shards * times)
        for name in ("matches", "object_counts", "match_totals")
        for table in (found.table(name),)
    }
    scores = score_matches(tables, categories, rules, work)
    assert 0 < scores["box"]["AP"] < 1


STEPS: dict[str, Callable[..., None]] = {
    "ingest": lambda bench: run_stage(bench, ingest, "ingest"),
    "ground_truth": lambda bench: run_stage(bench, ground_truth, "ground_truth"),
    "crops": number_crops,
    "match": match,
    "accumulate": accumulate,
}


def make(bench: Bench) -> None:
    """Proposals and predictions, from true objects."""
    truth, work = bench.load("ground_truth"), bench.work("made")
    proposals, predictions = work.writer("proposals"), work.writer("predictions")
    rng = np.random.default_rng(1)
    stand_in = coco_rle.encode_window(np.ones((40, 40), bool), 20, 20, HEIGHT, WIDTH)
    num_classes = len(truth.json("categories"))
    for index in range(truth.table("truth_images").num_shards):
        objects = truth.table("truth_instances").shard(index)
        if objects["mask_rle"].null_count:  # boxes only
            place = objects.schema.get_field_index("mask_rle")
            objects = objects.set_column(place, "mask_rle", [[stand_in] * objects.num_rows])
        images = truth.table("truth_images").shard(index)
        proposals.add(_proposals(_of_split(objects, "unlabeled")))
        told = _of_split(objects, "validation"), _of_split(images, "validation")
        predictions.add(_predictions(*told, num_classes, rng))
    proposals.close()
    predictions.close()
    bench.save("made", work)


def _of_split(table: pa.Table, split: str) -> pa.Table:
    return table.filter(pc.equal(table["split"], split))  # pyright: ignore[reportAttributeAccessIssue]


def _proposals(objects: pa.Table) -> pa.Table:
    columns = {name: objects[name] for name in objects.column_names}
    columns["proposal_id"] = objects["instance_id"]
    columns["objectness"] = pa.array(np.ones(len(objects), np.float32))
    columns["origin"] = pa.array(["external"] * len(objects))
    return pa.table([columns[n] for n in PROPOSALS.names], PROPOSALS)


def _predictions(
    objects: pa.Table, images: pa.Table, num_classes: int, rng: np.random.Generator
) -> pa.Table:
    """True objects with their classes, and others of the shard anywhere with any class."""
    if not len(objects):
        return PREDICTIONS.empty_table()
    noise = rng.integers(0, len(objects), max(0, DETECTIONS * len(images) - len(objects)))
    rows = objects.take(pa.array(np.concatenate([np.arange(len(objects)), noise])))
    true, total = len(objects), len(rows)
    image_id = rows["image_id"].to_numpy().copy()
    image_id[true:] = rng.choice(images["image_id"].to_numpy(), len(noise))
    class_index = rows["category_id"].to_numpy() - 1
    class_index[true:] = rng.integers(0, num_classes, len(noise))
    score = np.where(
        np.arange(total) < true, rng.uniform(0.2, 1, total), rng.uniform(0, 0.6, total)
    )
    boxes = matrix(rows["bbox_xyxy"])
    boxes = boxes + rng.normal(0, 1, (total, 2)).astype(np.float32)[:, [0, 1, 0, 1]]
    columns = {
        "image_id": image_id,
        "class_index": class_index.astype(np.int32),
        "score": score.astype(np.float32),
        "bbox_xyxy": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
        **{name: rows[name] for name in ("mask_rle", "height_px", "width_px")},
    }
    order = pa.array(np.lexsort((-score, image_id)))
    names = PREDICTIONS.names
    return pa.table({name: columns[name] for name in names}).take(order)


# ---------------------------------------------------------------- measuring


def measure(folder: str, step: str) -> dict[str, float]:
    """Run a step in this process."""
    PIL.Image.init()  # its readers are modules too
    cv2.setNumThreads(1)
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    memory = PeakMemory()
    before_mb = memory.now_mb("RssAnon")
    memory.start()
    began, began_cpu = time.perf_counter(), time.process_time()
    name, _, times = step.partition(" x ")
    STEPS[name](Bench(folder), *([int(times)] if times else []))
    result = {"wall_s": time.perf_counter() - began, "cpu_s": time.process_time() - began_cpu}
    memory.stop()
    return result | {"anonymous_mb": memory.peak_mb - before_mb}


def in_process(folder: str, step: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", folder, step]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


def measure_set(
    shape: Shape, num_images: int, rounds: int, over: Sequence[int] = ()
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="gcdis-data-") as folder:
        began = time.perf_counter()
        num_objects = write_set(Path(folder), shape, num_images)
        size_mb = os.path.getsize(f"{folder}/all.json") / 1e6
        print(
            f"{shape.name}: {num_images:,} images, {num_objects:,} objects, {size_mb:,.0f} MB of "
            f"JSON, written in {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
        )
        for step in STEPS:
            if step == "crops":
                subprocess.run([sys.executable, __file__, "--worker", folder, "make"], check=True)
            times = rounds if num_images <= SMALL else 1
            results = [in_process(folder, step) for _ in range(times)]
            print(num_images, step, json.dumps(results), file=sys.stderr)
            found[step] = {
                name: statistics.median(one[name] for one in results) for name in results[0]
            }
        for number in over:
            one = in_process(folder, f"accumulate x {number}")
            each = 1000 * one["cpu_s"] / num_images / number
            print(
                f"accumulate, as if {number * num_images:,} images: {each:.3f} CPU ms an image, "
                f"{one['anonymous_mb']:.0f} MB"
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of this file.")
    parser.add_argument("--images", type=int, nargs="+", help="numbers of images")
    parser.add_argument("--objects365", action="store_true", help="boxes only, 365 classes")
    parser.add_argument("--rounds", type=int, default=5, help="of small sets")
    parser.add_argument(
        "--over", type=int, nargs="+", default=[], help="accumulate also these multiples of a set"
    )
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "STEP"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        folder, step = args.worker
        if step == "make":
            make(Bench(folder))
        else:
            print(json.dumps(measure(folder, step)))
        return
    shape = OBJECTS365 if args.objects365 else LVIS
    sizes = args.images or ([1_700_000] if args.objects365 else [1_000, 10_000, 100_000])
    found = {size: measure_set(shape, size, args.rounds, args.over) for size in sizes}
    print("| step | images | wall s | CPU s | CPU ms an image | of the smallest | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for step in STEPS:
        for size in sizes:
            r, least = found[size][step], found[sizes[0]][step]
            each = r["cpu_s"] / size
            print(
                f"| {step} | {size:,} | {r['wall_s']:.2f} | {r['cpu_s']:.2f} | {1000 * each:.3f} "
                f"| {each / (least['cpu_s'] / sizes[0]):.2f} | {r['anonymous_mb']:.0f} |"
            )


if __name__ == "__main__":
    main()
