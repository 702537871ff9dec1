"""How many classes were estimated, and how well crops were sorted into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from gcdis_ray.report import figures
from gcdis_ray.report.findings import dig, fraction, protocols, reasons
from gcdis_ray.report.html import fill
from gcdis_ray.report.section import DISCOVERY, Section, Tile
from gcdis_ray.report.view import RunView, printable
from gcdis_ray.words import hardly_known


def discovery_sections(view: RunView, metrics: Mapping[str, Any] | None = None) -> list[Section]:
    """The class count, if a stage has estimated it, and the accuracy, if an evaluation has told.

    Args:
        metrics: of an evaluation.
    """
    told = metrics or {}
    count = view.json("class_count")
    truth = _true_class_count(view, told)

    def body() -> Markup:
        accuracy, why = dig(told, "discovery", "accuracy"), reasons(told)
        if not (count or accuracy or why):
            return Markup("")
        baseline = dig(told, "discovery", "kmeans_accuracy") or {}
        return fill(
            "discovery",
            count=figures.class_count_figure(count, truth) if count else None,
            method=str(count.get("method", "")) if count else "",
            warning=count.get("warning") if count else None,
            others=_other_class_counts(count) if count else [],
            accuracy=figures.accuracy_figure(accuracy, baseline) if accuracy else None,
            reasons=why,
        )

    return [
        Section(
            "discovery",
            "Discovery",
            body,
            DISCOVERY,
            heading="How many classes, and how well sorted",
            tiles=[*_accuracy_tiles(told), *_count_tiles(count, truth)],
            sentences=_accuracy_sentences(told),
            definitions=list(protocols(told)),
        )
    ]


def _true_class_count(view: RunView, metrics: Mapping[str, Any]) -> int | None:
    """From the metrics, else the categories of the ground truth; None without either."""
    truth = dig(metrics, "class_count", "truth")
    if truth is None:
        categories = view.truth_categories()
        return len(categories) if categories else None
    return int(truth)


def _other_class_counts(count: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per class-count estimator that is part of the one that counts, or shown beside it."""
    return [
        {
            "method": printable(other["method"]),
            "num_classes": other["num_classes"],
            "interval": other["interval"],
            "counts": other["method"] in count.get("combines", ()),
        }
        for other in count.get("others") or []
    ]


def _accuracy_tiles(metrics: Mapping[str, Any]) -> Iterator[Tile]:
    for group, label in (("novel", "accuracy, novel classes"), ("all", "accuracy, all classes")):
        accuracy = dig(metrics, "discovery", "accuracy", group)
        if accuracy is not None:
            baseline = dig(metrics, "discovery", "kmeans_accuracy", group)
            note = f"k-means {fraction(baseline)}" if baseline is not None else "clustering"
            yield Tile(label, fraction(accuracy), note, hot=group == "novel")


def _count_tiles(count: Mapping[str, Any] | None, truth: int | None) -> Iterator[Tile]:
    if count:
        number = count["num_classes"]
        low, high = count.get("interval") or (number, number)
        value, note = f"{number:,}", f"interval {low:,} to {high:,}"
        if hardly_known(low, high):
            value, note = f"{low:,} to {high:,}", f"hardly known, at best {number:,}"
        if truth is not None:
            note += f", truth {truth:,}"
        yield Tile("classes estimated", value, note, rank=1)


def _accuracy_sentences(metrics: Mapping[str, Any]) -> list[str]:
    accuracy = dig(metrics, "discovery", "accuracy", "novel")
    baseline = dig(metrics, "discovery", "kmeans_accuracy", "novel")
    if accuracy is None:
        return []
    versus = f" (k-means on the frozen embeddings: {baseline:.0%})" if baseline is not None else ""
    return [
        f"Measured against ground truth that no stage before evaluation has seen, "
        f"{accuracy:.0%} of the crops of novel classes landed in the right one{versus}."
    ]
