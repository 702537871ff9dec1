"""The metrics of a run in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcdis_ray.evaluation.scored_images import ARE_IMAGES, NO_PREDICTIONS
from gcdis_ray.words import estimate

_KINDS, _THIRDS = ("all", "known", "novel"), ("head", "mid", "tail")
_ACCURACY = "accuracy"
_ROWS = (  # title, section and name in the metrics, parts
    ("proposals, mask AR10", "proposals", "mask_ar10", _KINDS),
    ("proposals, mask AR100", "proposals", "mask_ar100", _KINDS),
    ("proposals, box AR10", "proposals", "box_ar10", _KINDS),
    ("proposals, box AR100", "proposals", "box_ar100", _KINDS),
    ("clustering accuracy", "discovery", _ACCURACY, _KINDS),
    ("  objects with a crop", "discovery", "objects_with_crop", _KINDS),
    ("  found and sorted", "discovery", "found_and_sorted", _KINDS),
    ("  by class frequency", "discovery", "accuracy_by_frequency", _THIRDS),
    ("  placed, untrained", "discovery", "placed_accuracy", _KINDS),
    ("  semi-sup. k-means", "discovery", "ss_kmeans_accuracy", _KINDS),
    ("  k-means, by labels", "discovery", "kmeans_named_accuracy", _KINDS),
    ("  k-means, by truth", "discovery", "kmeans_accuracy", _KINDS),
    ("  k-means, pixels", "discovery", "kmeans_pixels_accuracy", _KINDS),
    ("mask AP", "detection", "mask_ap", _KINDS),
    ("box AP", "detection", "box_ap", _KINDS),
)
_HEADS = {_ACCURACY, "mask_ap", "box_ap"}  # have a line even where they could not be measured


def metrics_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What stage evaluate found: recall of proposals, accuracies and what they are of, AP, by which
    rules, and the number of classes.

    Args:
        metrics: its document ``metrics``. What it does not have has no line.
    """
    lines = []
    for title, section, name, parts in _ROWS:
        values, why = metrics.get(section, {}).get(name), metrics.get(section, {}).get("reason")
        unknown = not values or all(v is None for v in values.values())
        if not values or (unknown and (name not in _HEADS or why == NO_PREDICTIONS)):
            continue
        if unknown and why:
            lines.append(f"{title:<22} n/a: {why}")
            continue
        line = _line(title, {part: _number(values.get(part)) for part in parts})
        lines.append(f"{line}   {_of_crops(metrics)}" if name == _ACCURACY else line)
    detection = metrics["detection"]
    for kind, values in (detection.get("ap_by_frequency") or {}).items():
        if values is not None:
            by_group = {group: _number(values[group]) for group in "rcf"}
            lines.append(_line(f"{kind} AP by frequency", by_group))
    if rules := detection.get("rules"):
        mapping = detection["mapping"]
        chosen = ", ".join(f"{part} {mapping[part]}" for part in ("source", "scope", "drop"))
        leak = "leak-free" if mapping["leak_free"] else "uses labels of the scored images"
        lines.append(f"{'AP scored by':<22} rules {rules}; mapping: {chosen} ({leak})")
        if note := mapping.get("note"):
            lines.append(f"{'':<22} {note}")
    count = metrics["class_count"]
    told = {part: _known(count[part]) for part in ("estimate", "discovered", "truth")}
    if interval := count.get("interval"):
        told["estimate"] = estimate(count["estimate"], *interval)
    return [*lines, _line("class count", told)]


def below_start(metrics: Mapping[str, Any]) -> str | None:
    """A line if training has lost what placing had; None where it has not, or nobody can tell."""
    end, start = (
        (metrics["discovery"].get(name) or {}).get("all") for name in (_ACCURACY, "placed_accuracy")
    )
    if end is None or start is None or end >= start:
        return None
    return (
        f"discovery ended below its start: {end:.3f} after training, {start:.3f} placed "
        f"(accuracy {_of_crops(metrics)})"
    )


def more_than_images(metrics: Mapping[str, Any]) -> str | None:
    """A line if images that are taken for one object each show more; None where that is not so."""
    objects, images = (metrics["coverage"][name] for name in ("num_objects", "num_unlabeled_crops"))
    if metrics["proposals"]["reason"] != ARE_IMAGES or objects <= images:
        return None
    return (
        f"{objects:,} true objects on {images:,} images, which stages.propose.source: image takes "
        "for one object each: crops of images with several are not scored"
    )


def _of_crops(metrics: Mapping[str, Any]) -> str:
    return f"of {metrics['discovery']['num_crops_scored']:,} crops"


def _line(title: str, values: Mapping[str, str]) -> str:
    return f"{title:<22} " + "   ".join(f"{part} {value}" for part, value in values.items())


def _known(value: int | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
