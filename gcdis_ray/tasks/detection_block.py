"""The metrics' ``detection``: average precision on validation images, and by which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcdis_ray.metrics import discovery

_KINDS = ("mask", "box")
_GROUPS = {"r": "APr", "c": "APc", "f": "APf"}


@dataclass(frozen=True)
class DetectionScores:
    """Args:
    block: for the metrics.
    mapping: output -> column of the class it stands for.
    ap_of_columns: ``mask_ap`` and ``box_ap`` of every column; None where nothing was scored.
    """

    block: dict[str, Any]
    mapping: Mapping[int, int]
    ap_of_columns: Sequence[Mapping[str, float | None]] | None


def detection_scores(
    scores: Mapping[str, Any] | None,
    mapping: Mapping[int, int],
    mapping_info: Mapping[str, Any],
    reason: str | None,
) -> DetectionScores:
    """Args:
    scores: as of :func:`gcdis_ray.metrics.detection.evaluate_tables`, None if there is no truth.
    mapping_info: how the mapping was found, for the metrics.
    reason: why there are no scores.
    """
    block: dict[str, Any] = {
        f"{kind}_ap{at}": discovery.NOTHING for kind in _KINDS for at in ("", "50")
    }
    block |= {"scores": None, "protocol": None, "mapping": dict(mapping_info), "reason": reason}
    if scores is None:
        return DetectionScores(block, mapping, None)
    for kind in _KINDS:
        if (found := scores[kind]) is None:
            continue
        for key, name in (("AP", f"{kind}_ap"), ("AP50", f"{kind}_ap50")):
            block[name] = {
                "all": found[key],
                "known": found["known"][key],
                "novel": found["novel"][key],
            }
    block["scores"] = {"mask": scores["mask"], "box": scores["box"], **scores["counts"]}
    block["protocol"] = scores["protocol"]
    return DetectionScores(block, mapping, list(scores["per_class"].values()))


def score_detections(sealed, predictions, classes, mapping, info, max_per_image, work):
    """Interim."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from gcdis_ray.metrics.detection import evaluate_tables
    from gcdis_ray.tasks.scored_detections import in_mapping_half, scored_detections

    images = sealed.table("truth_images").read()
    images = images.filter(pc.equal(images["split"], "validation"))["image_id"].to_pylist()  # pyright: ignore
    if info["source"] == "split_val":
        images = [i for i, m in zip(images, in_mapping_half(images), strict=True) if not m]
    truth = sealed.table("truth_instances").read()
    truth = truth.filter(pc.equal(truth["split"], "validation"))  # pyright: ignore
    truth = truth.filter(pc.is_in(truth["image_id"], value_set=pa.array(images, pa.int64())))  # pyright: ignore
    if not truth.num_rows:
        return detection_scores(None, mapping, info, "no ground truth for validation images")
    rows = predictions.read()
    rows = rows.filter(pc.is_in(rows["image_id"], value_set=pa.array(images, pa.int64())))  # pyright: ignore
    named = np.zeros(int(rows["class_index"].to_numpy().max(initial=0)) + 1, bool)
    for k in mapping:
        if k < len(named):
            named[k] = True
    rows, lost = scored_detections(rows, named, max_per_image, info["drop"])
    scores = evaluate_tables(
        images,
        truth,
        rows,
        classes.categories,
        {k: classes.categories[c]["category_id"] for k, c in mapping.items()},
    )
    scores["counts"]["unmapped_predictions"] = lost
    return detection_scores(scores, mapping, info, None)
