"""Images a second of ``gcdis predict`` beside those of stage predict on the same images.

    python benchmarks/predict.py runs/quickstart
    python benchmarks/predict.py runs/quickstart --copies 10 --runtime ray --data-workers 2

The images are those of the run's validation set, each some times under another name. Stage predict
reads them from the run's storage, in this process; ``gcdis predict`` lists and checks them,
predicts, and writes its files.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from gcdis_ray.applying.opening import open_trained
from gcdis_ray.applying.predictions import Request, apply
from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.instances import inference  # noqa: F401  torch: loaded before the clock starts
from gcdis_ray.run.opened import OpenedRun, open_run
from gcdis_ray.run.work import local_work
from gcdis_ray.stages import predict
from gcdis_ray.store.members import schemas_of
from gcdis_ray.store.storage import LocalStorage, read_manifest


def write_images(run: OpenedRun, folder: Path, copies: int) -> int:
    """The validation images as files, and how many there are of one copy."""
    inputs, number = run.inputs("images", optional=("source",)), 0
    files = ImageFiles.of(inputs)
    for shard in inputs.table("images").iter_shards():
        mine = shard.filter([split == "validation" for split in shard["split"].to_pylist()])
        for file in files.read(mine):
            number += 1
            for copy in range(copies):
                (folder / f"{copy:03d}-{number:06d}").write_bytes(file.data)
    return number


def stage_seconds(run: OpenedRun, folder: Path) -> float:
    """Of stage predict in this process."""
    inputs = run.inputs("images", "segmenter", "segmenter_spec", optional=("source",))
    work = local_work(LocalStorage(str(folder)), schemas_of(predict.GIVES))
    began = time.perf_counter()
    predict.run(inputs, predict.Config.model_validate({}), work)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="see the head of this file")
    parser.add_argument("run", help="storage or config of a run")
    parser.add_argument("--copies", type=int, default=3, help="of each image")
    parser.add_argument("--runtime", choices=("local", "ray"), default="local")
    parser.add_argument("--data-workers", type=int, default=2)
    args = parser.parse_args()
    run = open_run(args.run)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images, out = folder / "images", folder / "out"
        images.mkdir()
        number = write_images(run, images, args.copies)
        compute = {"runtime": args.runtime, "data_workers": args.data_workers}
        request = Request(str(images), str(out), compute=compute)
        began = time.perf_counter()
        applied = apply(open_trained(args.run), request, lambda event: None, lambda text: None)
        whole = time.perf_counter() - began
        total = applied.summary["images"]
        rows = [("gcdis predict, all of it", total, whole)]
        storage = LocalStorage(str(out))
        for stage in ("new_images", "predict"):
            manifest = read_manifest(storage, stage, storage.folders(stage)[0])
            assert manifest is not None
            rows.append((f"  of it {stage}", total, manifest.timings_s["wall"]))
        rows.append(("stage predict", number, stage_seconds(run, folder / "stage")))
        for what, count, seconds in rows:
            print(
                f"{what:<26}{count:>8,} images {seconds:>8.1f} s {count / seconds:>8.1f} images/s"
            )


if __name__ == "__main__":
    main()
