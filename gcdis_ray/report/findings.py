"""The numbers of a run, read tolerantly: a stage that has not run yet leaves its numbers out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcdis_ray.data.images.image_files import listed_images
from gcdis_ray.masks.instance_masks import count_origins
from gcdis_ray.report.assigned import Crops
from gcdis_ray.report.view import RunView, printable


@dataclass(frozen=True)
class Tile:
    """One big number with its meaning and a note; ``hot`` ones are about what is new."""

    label: str
    value: str
    note: str
    hot: bool = False


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
    return sorted(rows, key=lambda r: (r["known"], -(r["mask_ap"] or 0), r["name"]))


def _measured(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 0 else None


def reasons(metrics: Mapping[str, Any]) -> list[str]:
    """Why numbers are missing from a finished evaluation, in its own words."""
    blocks = (("clustering", "discovery"), ("detection", "detection"))
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


def tiles(view: RunView, metrics: Mapping[str, Any], crops: Crops | None) -> list[Tile]:
    """The few big numbers, most telling first."""
    out: list[Tile] = []
    discovered = [c for c in view.classes() if not c.known]
    if crops is not None:
        used = len(set(crops.class_index.tolist()) & {c.class_index for c in discovered})
        note = _beside_known(view)
        if pruning := view.json("discover", "pruning"):
            note += f", {pruning['num_outputs']:,} outputs trained"
        out.append(Tile("classes discovered", f"{used:,}", note, hot=True))
    for group, label in (("novel", "accuracy, novel classes"), ("all", "accuracy, all classes")):
        accuracy = dig(metrics, "discovery", "accuracy", group)
        if accuracy is not None:
            baseline = dig(metrics, "discovery", "kmeans_accuracy", group)
            note = f"k-means {fraction(baseline)}" if baseline is not None else "clustering"
            out.append(Tile(label, fraction(accuracy), note, hot=group == "novel"))
    for group in ("novel", "known"):
        ap = dig(metrics, "detection", "mask_ap", group)
        if ap is not None:
            box = dig(metrics, "detection", "box_ap", group)
            note = f"box AP {average_precision(box)}" if box is not None else "IoU .50 to .95"
            value = average_precision(ap)
            out.append(Tile(f"mask AP, {group}", value, note, hot=group == "novel"))
    if count := view.json("count", "class_count"):
        low, high = count.get("interval") or (count["num_classes"],) * 2
        truth = true_class_count(view, metrics)
        note = f"interval {low} to {high}" + (f", truth {truth}" if truth is not None else "")
        out.append(Tile("classes estimated", f"{count['num_classes']:,}", note))
    return out


def average_precision(value: Any) -> str:
    """As :func:`fraction`, with a third decimal where the second says little."""
    text = fraction(value)
    return f"{value:.3f}" if text != "–" and value < 0.1 else text


def _beside_known(view: RunView) -> str:
    num_known = sum(1 for c in view.classes() if c.known)
    return f"besides {plural(num_known, 'known class', 'known classes')}"


def true_class_count(view: RunView, metrics: Mapping[str, Any]) -> int | None:
    """From the metrics, else the categories of the ground truth; None without either."""
    truth = dig(metrics, "class_count", "truth")
    if truth is None:
        categories = view.truth_categories()
        return len(categories) if categories else None
    return int(truth)


def other_class_counts(count: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per class-count estimator that was run beside the one that counts."""
    return [
        {
            "method": printable(other["method"]),
            "num_classes": other["num_classes"],
            "interval": other["interval"],
        }
        for other in count.get("others") or []
    ]


def image_counts(view: RunView) -> dict[str, int]:
    """Images per split, empty before ``ingest``."""
    counts: dict[str, int] = {}
    ingest = view.artifacts.get("ingest")
    images = listed_images(ingest) if ingest else None
    for shard in images.iter_shards(["split"]) if images else ():
        for split in shard["split"].to_pylist():
            counts[split] = counts.get(split, 0) + 1
    return counts


def headline(view: RunView, crops: Crops | None) -> str:
    """The result in a line."""
    discovered = {c.class_index for c in view.classes() if not c.known}
    if crops is None:
        return f"{view.name}: on the way"
    used = len(discovered & set(crops.class_index.tolist()))
    num_images = image_counts(view).get("unlabeled", 0)
    return (
        f"{plural(used, 'class', 'classes')} that nobody had named, "
        f"found in {plural(num_images, 'unlabeled image')}"
    )


def made_masks(view: RunView) -> list[str]:
    """Whose masks were made, not annotated; nothing where every labeled object had one."""
    made, crops = view.table("propose", "instance_masks"), view.table("crop", "crops")
    if made is None or crops is None:
        return []
    counts = count_origins(crops, made)
    total = sum(counts.values())
    how = {"model": "made by the proposer from their boxes", "box": "the boxes themselves"}
    return [
        f"Of the {plural(total, 'labeled crop')}, {counts[origin]:,} came with a box only: "
        f"their masks are {text}."
        for origin, text in how.items()
        if counts[origin]
    ]


def sentences(view: RunView, metrics: Mapping[str, Any], crops: Crops | None) -> list[str]:
    """What was found, in words."""
    splits = image_counts(view)
    classes = view.classes()
    num_known = sum(1 for c in classes if c.known)
    if not splits:
        return ["Nothing has been computed yet. Run the pipeline to fill this page."]
    out = [
        f"{plural(splits.get('labeled', 0), 'image')} came with objects of "
        f"{plural(num_known, 'known class', 'known classes')}; "
        f"{plural(splits.get('unlabeled', 0), 'image')} came without any label."
    ]
    out += made_masks(view)
    if crops is None:
        return [*out, "Classes have not been discovered yet."]
    discovered = {c.class_index for c in classes if not c.known}
    novel = np.isin(crops.class_index, list(discovered))
    used = len(np.unique(crops.class_index[novel]))
    out.append(
        f"In them, {plural(len(crops.crop_index), 'object')} were found; "
        f"{int(novel.sum()):,} of these were sorted into "
        f"{plural(used, 'class', 'classes')} that nobody had named, "
        f"{int((~novel).sum()):,} into known classes."
    )
    accuracy = dig(metrics, "discovery", "accuracy", "novel")
    baseline = dig(metrics, "discovery", "kmeans_accuracy", "novel")
    if accuracy is not None:
        versus = (
            f" (k-means on the frozen embeddings: {baseline:.0%})" if baseline is not None else ""
        )
        out.append(
            f"Measured against ground truth that no stage before evaluation has seen, "
            f"{accuracy:.0%} of the crops of novel classes landed in the right one{versus}."
        )
    return out
