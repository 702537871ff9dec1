"""The numbers of a metrics document, read tolerantly: what was not measured is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gcdis_ray.report.view import printable


def dig(tree: Any, *path: str) -> Any:
    """The value at a path of keys, or None where the path ends early."""
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def fraction(value: Any) -> str:
    """Two decimals, or a dash for what was not measured (COCO writes -1)."""
    if not isinstance(value, int | float) or value != value or value < 0:
        return "–"
    return f"{value:.2f}"


def signed(value: float) -> str:
    """Two decimals, with a proper minus."""
    return f"{value:.2f}".replace("-", "−")


_GROUPS, _THIRDS, _SIZES = (
    ("all", "known", "novel"),
    ("head", "mid", "tail"),
    ("small", "medium", "large"),
)
_SORTINGS = {
    "accuracy": "this run",
    "placed_accuracy": "placed, before training",
    "ss_kmeans_accuracy": "semi-supervised k-means",
    "kmeans_named_accuracy": "k-means, named by labeled crops",
    "kmeans_accuracy": "k-means, named by the truth",
    "kmeans_pixels_accuracy": "k-means on pixels, named by the truth",
}


def sorting_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Accuracies of discovery and of clustering alone, whichever were measured: by group of classes
    and by third, and ``free``, of all classes under one matching."""
    rows = []
    for name, title in _SORTINGS.items():
        parts = dig(metrics, "discovery", name)
        if dig(parts, "all") is None:
            continue
        free = dig(metrics, "discovery", f"{name}_hungarian", "all")
        by_truth = title.endswith("by the truth")  # is one matching already
        thirds = dig(metrics, "discovery", f"{name}_by_frequency")
        rows.append(
            {
                "title": title,
                "free": dig(parts, "all") if by_truth else free,
                **{group: dig(parts, group) for group in _GROUPS},
                **{third: dig(thirds, third) for third in _THIRDS},
            }
        )
    return rows


def finding_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How many objects of unlabeled images were met by proposals, became crops, and were sorted
    rightly, whichever was measured: by group of classes and by size."""
    names = [
        (f"{kind} AR, best {best}", "proposals", f"{kind}_ar{best}")
        for kind in ("mask", "box")
        for best in (10, 100)
    ]
    names += [
        ("objects with a crop", "discovery", "objects_with_crop"),
        ("found and sorted rightly", "discovery", "found_and_sorted"),
    ]
    rows = []
    for title, block, name in names:
        parts, sizes = dig(metrics, block, name), dig(metrics, block, f"{name}_by_size")
        if dig(parts, "all") is not None:
            columns = {g: dig(parts, g) for g in _GROUPS} | {s: dig(sizes, s) for s in _SIZES}
            rows.append({"title": title, **columns})
    return rows


def detection_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mask and box AP for all, known and novel classes, whichever were measured."""
    rows = []
    for kind, title in (("mask_ap", "mask AP"), ("box_ap", "box AP")):
        numbers = dig(metrics, "detection", kind)
        if isinstance(numbers, Mapping) and any(v is not None for v in numbers.values()):
            rows.append(dict(title=title, **{g: numbers.get(g) for g in ("all", "known", "novel")}))
    return rows


def frequency_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mask and box AP of rare, common and frequent classes, where the data set groups them."""
    rows = []
    for kind in ("mask", "box"):
        numbers = dig(metrics, "detection", "ap_by_frequency", kind)
        if isinstance(numbers, Mapping) and any(v is not None for v in numbers.values()):
            rows.append(dict(title=f"{kind} AP", **{g: numbers.get(g) for g in "rcf"}))
    return rows


def detection_facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """By which rules detections were scored, and by which names: (what, in words)."""
    facts = []
    if rules := dig(metrics, "detection", "rules"):
        facts.append(("rules", {"coco": "COCO", "lvis": "LVIS, federated"}.get(rules, rules)))
    if mapping := dig(metrics, "detection", "mapping", "protocol"):
        facts.append(("outputs and classes", printable(mapping)))
    if note := dig(metrics, "detection", "mapping", "note"):
        facts.append(("because", printable(note)))
    return facts


def per_class_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per class of the ground truth, novel ones first, best first; None if not measured."""
    rows = [
        {
            "name": printable(row["name"]),
            "known": bool(row["known"]),
            "num_objects": row.get("num_objects"),
            "accuracy": _measured(row.get("accuracy")),
            "mask_ap": _measured(row.get("mask_ap")),
            "box_ap": _measured(row.get("box_ap")),
        }
        for row in metrics.get("per_class") or []
    ]
    return sorted(
        rows,
        key=lambda r: (r["known"], -(r["mask_ap"] or 0), -(r["accuracy"] or 0), r["name"]),
    )


def _measured(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 else None


def reasons(metrics: Mapping[str, Any]) -> list[str]:
    """Why numbers are missing from a finished evaluation, in its own words."""
    blocks = (
        ("proposals", "proposals"),
        ("clustering", "discovery"),
        ("detection", "detection"),
    )
    found = [(title, dig(metrics, block, "reason")) for title, block in blocks]
    return [f"{title}: {printable(reason)}" for title, reason in found if reason]


def protocols(metrics: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every ``protocol`` named anywhere in the metrics: (what it belongs to, its text)."""
    if not isinstance(metrics, Mapping):
        return
    for key, value in metrics.items():
        if key != "protocol":
            yield from protocols(value, (*path, str(key)))
        elif isinstance(value, Mapping):
            for name, text in value.items():
                yield printable(" ".join((*path, str(name)))), printable(text)
        elif value:
            yield printable(" ".join(path)), printable(value)


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 class``, ``12 classes``; thousands are set apart."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def average_precision(value: Any) -> str:
    """As :func:`fraction`, with a third decimal where the second says little."""
    text = fraction(value)
    return f"{value:.3f}" if text != "–" and value < 0.1 else text
