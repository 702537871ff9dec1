"""The metrics of a run in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gcdis_ray.words import estimate

_KINDS, _THIRDS = ("all", "known", "novel"), ("head", "mid", "tail")
_ROWS = (  # title, section and name in the metrics, parts
    ("clustering accuracy", "discovery", "accuracy", _KINDS),
    ("  by class frequency", "discovery", "accuracy_by_frequency", _THIRDS),
    ("  k-means, embeddings", "discovery", "kmeans_accuracy", _KINDS),
    ("  k-means, pixels", "discovery", "kmeans_pixels_accuracy", _KINDS),
    ("mask AP", "detection", "mask_ap", _KINDS),
    ("box AP", "detection", "box_ap", _KINDS),
)


def metrics_lines(metrics: Mapping[str, Any]) -> list[str]:
    """What stage evaluate found: accuracies and AP, by which rules, and the number of classes.

    Args:
        metrics: its document ``metrics``. What it does not have has no line.
    """
    lines = []
    for title, section, name, parts in _ROWS:
        if values := metrics[section].get(name):
            lines.append(_line(title, {part: _number(values.get(part)) for part in parts}))
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


def _line(title: str, values: Mapping[str, str]) -> str:
    return f"{title:<22} " + "   ".join(f"{part} {value}" for part, value in values.items())


def _known(value: int | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
