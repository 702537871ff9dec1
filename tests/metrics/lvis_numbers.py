"""Writes ``lvis_numbers.json``: what lvis-api itself gives for the sets that tests score.

lvis-api is none of this project's packages. With it in a folder of its own:

    uv pip install --no-deps --target FOLDER lvis==0.5.3
    PYTHONPATH=FOLDER python tests/metrics/lvis_numbers.py

The file has, by seed of :func:`random_sets.crowded_set`, a hash of the set and the nine numbers of
masks (``segm``) and boxes (``bbox``) as ``float.hex`` writes them; -1 where nothing could be found.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from random_sets import as_boxes, crowded_set

NUMBERS = Path(__file__).with_name("lvis_numbers.json")
NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
_SEEDS = range(12)


def digest(truth: dict[str, Any], detections: list[dict[str, Any]]) -> str:
    """Tells whether a set is the one that was scored: generators may draw otherwise one day."""
    return hashlib.sha256(json.dumps([truth, detections]).encode()).hexdigest()


def lvis_api(truth: dict[str, Any], results: list[dict[str, Any]], kind: str) -> dict[str, str]:
    """The nine numbers of ``kind``, segm or bbox. Results of masks must have no box, whose area
    lvis-api would take for the mask's."""
    setattr(np, "float", float)  # noqa: B010 - lvis-api asks for a name that numpy has dropped
    from lvis import LVIS, LVISEval, LVISResults  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "truth.json")
        path.write_text(json.dumps(truth))
        ground_truth = LVIS(str(path))
    evaluation = LVISEval(ground_truth, LVISResults(ground_truth, results), kind)
    evaluation.run()
    found = evaluation.get_results()
    return {name: float(found[name]).hex() for name in NAMES}


def main() -> None:
    sets = {}
    for seed in _SEEDS:
        truth, detections = crowded_set(seed)
        sets[str(seed)] = {
            "sha256": digest(truth, detections),
            "segm": lvis_api(truth, detections, "segm"),
            "bbox": lvis_api(truth, as_boxes(detections), "bbox"),
        }
    NUMBERS.write_text(json.dumps(sets, indent=1) + "\n")


if __name__ == "__main__":
    main()
