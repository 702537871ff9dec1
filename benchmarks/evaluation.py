"""Average precision at LVIS's scale: ours, lvis-api, pycocotools and faster-coco-eval, end to end.

    python benchmarks/evaluation.py --images 1000 --rounds 3
    python benchmarks/evaluation.py --images 20000 --only ours

A synthetic set in LVIS's shape is written first: blobs of 24 corners at 480 x 640, 12 objects of 5
classes an image, and as many detections as asked for, by masks. Each contestant then reads the two
JSON files and scores them in a process of its own, in turn, round by round. Ours is the command
line, which gives mask and box AP; the others give mask AP. Seconds are of the whole process,
imports included; memory is its peak resident set. Ratios are medians of ratios within a round.

lvis-api and faster-coco-eval are not among this project's packages: ``uv pip install --no-deps lvis
faster-coco-eval``. What is not installed is left out, and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

SIZE = (480, 640)
LVIS_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
COCO_NAMES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip


# ---------------------------------------------------------------- the set


@dataclass(frozen=True)
class Blob:
    """A mask and three others that resemble it."""

    rles: list[dict[str, Any]]
    boxes: list[list[float]]
    areas: list[int]


def blobs(rng: np.random.Generator, number: int) -> list[Blob]:
    import cv2
    from pycocotools import mask

    found = []
    for _ in range(number):
        center = rng.uniform((60, 60), (SIZE[1] - 60, SIZE[0] - 60))
        radius, angles = rng.uniform(4, 70), np.sort(rng.uniform(0, 2 * np.pi, 24))
        reach = radius * rng.uniform(0.6, 1.2, 24)
        rles = []
        for shift in (0.0, 0.05, 0.12, 0.3):
            move = center + rng.normal(0, shift * radius, 2)
            corners = move + (reach * np.array([np.cos(angles), np.sin(angles)])).T
            pixels = np.zeros(SIZE, np.uint8)
            cv2.fillPoly(pixels, [np.round(corners).astype(np.int32)], 1)
            rle = mask.encode(np.asfortranarray(pixels))
            rles.append({"size": list(SIZE), "counts": rle["counts"].decode()})  # pyright: ignore[reportAttributeAccessIssue]
        found.append(
            Blob(
                rles,
                [mask.toBbox(rle).tolist() for rle in rles],
                [int(mask.area(rle)) for rle in rles],
            )
        )
    return found


def write_set(folder: Path, images: int, classes: int, detections: int) -> None:
    """``lvis.json``, ``coco.json`` (the same without LVIS's lists) and ``results.json``."""
    rng = np.random.default_rng(0)
    library = blobs(rng, 1500)
    weight = 1 / np.arange(1, classes + 1)
    weight = rng.permutation(weight / weight.sum())
    listed, objects = [], []
    with (folder / "results.json").open("w") as file:
        for image_id in range(1, images + 1):
            here = rng.choice(classes, 5, replace=False, p=weight) + 1
            absent = [int(c) for c in rng.choice(classes, 8, replace=False) + 1 if c not in here]
            listed.append(
                {"id": image_id, "height": SIZE[0], "width": SIZE[1], "neg_category_ids": absent,
                 "not_exhaustive_category_ids": [int(here[0])] if image_id % 3 == 0 else []}
            )  # fmt: skip
            found = []
            for _ in range(12):
                blob, category = library[rng.integers(len(library))], int(rng.choice(here))
                objects.append(
                    {"id": len(objects) + 1, "image_id": image_id, "category_id": category,
                     "segmentation": blob.rles[0], "bbox": blob.boxes[0], "area": blob.areas[0]}
                )  # fmt: skip
                found += [(category, blob.rles[n], 0.2) for n in rng.permutation(4)[:3]]
            while len(found) < detections:
                named = here if rng.random() < 0.05 else absent if rng.random() < 0.05 else None
                category = rng.choice(named) if named is not None else rng.integers(classes) + 1
                blob = library[rng.integers(len(library))]
                found.append((int(category), blob.rles[rng.integers(4)], 0.0))
            rows = [
                {"image_id": image_id, "category_id": category, "segmentation": rle,
                 "score": round(float(rng.beta(1, 3) * 0.8 + extra), 6)}
                for category, rle, extra in found[:detections]
            ]  # fmt: skip
            text = json.dumps(rows)[1:-1]
            file.write(f"{'[' if image_id == 1 else ', '}{text}")
        file.write("]")
    counts = [int(rng.choice([5, 50, 500])) for _ in range(classes)]
    categories = [
        {"id": n + 1, "name": f"class {n + 1}", "image_count": count,
         "frequency": {5: "r", 50: "c", 500: "f"}[count]}
        for n, count in enumerate(counts)
    ]  # fmt: skip
    whole = {"images": listed, "annotations": objects, "categories": categories}
    (folder / "lvis.json").write_text(json.dumps(whole))
    plain = [{k: row[k] for k in ("id", "height", "width")} for row in listed]
    whole |= {"images": plain, "annotations": [row | {"iscrowd": 0} for row in objects]}
    (folder / "coco.json").write_text(json.dumps(whole))


# ---------------------------------------------------------------- contestants


def lvis_api(truth: str, results: str) -> Sequence[float]:
    setattr(np, "float", float)  # noqa: B010 - the published package asks for a name that numpy has dropped
    from lvis import LVIS, LVISEval, LVISResults  # pyright: ignore[reportMissingImports]

    ground_truth = LVIS(truth)
    evaluation = LVISEval(ground_truth, LVISResults(ground_truth, results), "segm")
    evaluation.run()
    return [evaluation.get_results()[name] for name in LVIS_NAMES]


def pycocotools(truth: str, results: str) -> Sequence[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ground_truth = COCO(truth)
    evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return list(evaluation.stats)


def faster(truth: str, results: str, lvis_style: bool) -> Sequence[float]:
    from faster_coco_eval import COCO, COCOeval_faster  # pyright: ignore[reportMissingImports]

    ground_truth = COCO(truth)
    evaluation = COCOeval_faster(
        ground_truth, ground_truth.loadRes(results), "segm", lvis_style=lvis_style
    )
    if lvis_style:
        evaluation.params.maxDets = [300]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    numbers = list(evaluation.all_stats)
    return [*numbers[:6], *numbers[14:17]] if lvis_style else numbers[:12]


@dataclass(frozen=True)
class Contestant:
    title: str
    package: str
    rules: str  # the set it is given, and the names of its numbers


CONTESTANTS = {
    "lvis": Contestant("lvis-api", "lvis", "lvis"),
    "faster-lvis": Contestant("faster-coco-eval, LVIS style", "faster_coco_eval", "lvis"),
    "ours": Contestant("ours", "gcdis_ray", "lvis"),
    "coco": Contestant("pycocotools", "pycocotools", "coco"),
    "faster-coco": Contestant("faster-coco-eval", "faster_coco_eval", "coco"),
    "ours-coco": Contestant("ours", "gcdis_ray", "coco"),
}


def contest(name: str, truth: str, results: str) -> None:
    """Runs in a process of its own: prints the numbers."""
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "lvis":
            numbers = lvis_api(truth, results)
        elif name == "coco":
            numbers = pycocotools(truth, results)
        else:
            numbers = faster(truth, results, name == "faster-lvis")
    print(json.dumps([float(n) for n in numbers]))


@dataclass(frozen=True)
class Run:
    wall_s: float
    cpu_s: float
    peak_mib: float
    numbers: list[float]


def run(name: str, folder: Path) -> Run:
    rules = CONTESTANTS[name].rules
    truth, results = str(folder / f"{rules}.json"), str(folder / "results.json")
    if name.startswith("ours"):
        command = ["-m", "gcdis_ray.cli", "evaluate", "--ground-truth", truth,
                   "--results", results, "--json"]  # fmt: skip
    else:
        command = [__file__, "--contestant", name, "--files", truth, results]
    output = folder / "numbers.json"
    began = perf_counter()
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file)
        _, status, used = os.wait4(process.pid, 0)
    wall = perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name} failed with status {process.returncode}")
    numbers = json.loads(output.read_text().splitlines()[-1])
    if isinstance(numbers, dict):
        names = LVIS_NAMES if rules == "lvis" else COCO_NAMES
        numbers = [-1.0 if numbers["mask"][n] is None else numbers["mask"][n] for n in names]
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, numbers)


# ---------------------------------------------------------------- the table


def table(rules: str, runs: dict[str, list[Run]]) -> Iterator[str]:
    names = [name for name in runs if CONTESTANTS[name].rules == rules]
    if not names:
        return
    reference, ours = names[0], runs.get("ours" if rules == "lvis" else "ours-coco", [])
    rounds = len(runs[reference])
    yield f"\n{rules.upper()} rules, medians of {rounds} rounds; ratios are to ours:\n"
    yield "| evaluator | wall s | CPU s | peak MiB | wall | CPU | memory | numbers |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in names:
        mine = runs[name]
        cells = [f"{statistics.median(r.wall_s for r in mine):.2f}",
                 f"{statistics.median(r.cpu_s for r in mine):.2f}",
                 f"{statistics.median(r.peak_mib for r in mine):.0f}"]  # fmt: skip
        for what in ("wall_s", "cpu_s", "peak_mib"):
            ratios = [getattr(a, what) / getattr(b, what) for a, b in zip(mine, ours, strict=False)]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        want, have = runs[reference][0].numbers, mine[0].numbers
        same = sum(a == b for a, b in zip(want, have, strict=True))
        cells.append(f"AP {have[0]:.6f}" + (f", {same} of {len(want)} bit for bit" if mine else ""))
        yield f"| {CONTESTANTS[name].title} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--detections", type=int, default=300, help="an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contestant:
        contest(args.contestant, *args.files)
        return
    chosen = [name for name in CONTESTANTS if name in args.only]
    for name in list(chosen):
        if importlib.util.find_spec(CONTESTANTS[name].package) is None:
            print(f"{CONTESTANTS[name].title}: skipped, {CONTESTANTS[name].package} is missing")
            chosen.remove(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_set(folder, args.images, args.classes, args.detections)
        size = (folder / "results.json").stat().st_size / 2**20
        print(f"{args.images} images x {args.classes} classes x {args.detections} detections, "
              f"{size:.0f} MiB of results")  # fmt: skip
        runs: dict[str, list[Run]] = {name: [] for name in chosen}
        for _ in range(args.rounds):
            for name in chosen:
                runs[name].append(run(name, folder))
                latest = runs[name][-1]
                print(f"{name}: {latest.wall_s:.2f} s wall, {latest.cpu_s:.2f} s CPU, "
                      f"{latest.peak_mib:.0f} MiB, load {os.getloadavg()[0]:.1f}",
                      file=sys.stderr)  # fmt: skip
    for rules in ("lvis", "coco"):
        for line in table(rules, runs):
            print(line)


if __name__ == "__main__":
    main()
