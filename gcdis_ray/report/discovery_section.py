"""How many classes were estimated, and how well crops were sorted into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from gcdis_ray.report import figures
from gcdis_ray.report.findings import (
    dig,
    finding_rows,
    fraction,
    plural,
    protocols,
    reasons,
    sorting_rows,
)
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
        found = finding_rows(told)
        if not (count or accuracy or found or why):
            return Markup("")
        baseline = dig(told, "discovery", "kmeans_accuracy") or {}
        return fill(
            "discovery",
            count=figures.class_count_figure(count, truth) if count else None,
            method=str(count.get("method", "")) if count else "",
            warning=count.get("warning") if count else None,
            others=_other_class_counts(count) if count else [],
            accuracy=figures.accuracy_figure(accuracy, baseline) if accuracy else None,
            sortings=sorting_rows(told),
            found=found,
            scored=_scored(told),
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


def _scored(metrics: Mapping[str, Any]) -> str:
    """What an accuracy is of, for beside it."""
    number = dig(metrics, "discovery", "num_crops_scored")
    return f"of {plural(number, 'crop')}" if number is not None else ""


def _accuracy_tiles(metrics: Mapping[str, Any]) -> Iterator[Tile]:
    rows = metrics.get("per_class") or []
    novel = sum(row.get("num_crops") or 0 for row in rows if not row["known"])
    for group, label, scored in (
        ("novel", "accuracy, novel classes", f"of {plural(novel, 'crop')}"),
        ("all", "accuracy, all classes", _scored(metrics)),
    ):
        accuracy = dig(metrics, "discovery", "accuracy", group)
        if accuracy is not None:
            baseline = dig(metrics, "discovery", "kmeans_accuracy", group)
            versus = f"k-means {fraction(baseline)}" if baseline is not None else ""
            note = "; ".join(part for part in (scored, versus) if part)
            yield Tile(label, fraction(accuracy), note, hot=group == "novel")
    right = dig(metrics, "discovery", "found_and_sorted", "all")
    if right is not None:
        share = fraction(dig(metrics, "discovery", "objects_with_crop", "all"))
        note = f"of all objects; {share} have a crop"
        yield Tile("found and sorted rightly", fraction(right), note)


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
    return [*_novel_sentence(metrics), *_coverage_sentence(metrics), *_start_sentence(metrics)]


def _novel_sentence(metrics: Mapping[str, Any]) -> Iterator[str]:
    accuracy = dig(metrics, "discovery", "accuracy", "novel")
    baseline = dig(metrics, "discovery", "kmeans_accuracy", "novel")
    if accuracy is None:
        return
    versus = f" (k-means on the frozen embeddings: {baseline:.0%})" if baseline is not None else ""
    yield (
        f"Measured against ground truth that no stage before evaluation has seen, "
        f"{accuracy:.0%} of the crops of novel classes landed in the right one{versus}."
    )


def _coverage_sentence(metrics: Mapping[str, Any]) -> Iterator[str]:
    share, right = (
        dig(metrics, "discovery", name, "all") for name in ("objects_with_crop", "found_and_sorted")
    )
    if share is None or right is None:
        return
    yield (
        f"Accuracies are {_scored(metrics)} that show a true object: {share:.0%} of all true "
        f"objects in unlabeled images have such a crop, and {right:.0%} were found and sorted "
        "rightly."
    )


def _start_sentence(metrics: Mapping[str, Any]) -> Iterator[str]:
    end, start = (
        dig(metrics, "discovery", name, "all") for name in ("accuracy", "placed_accuracy")
    )
    if end is not None and start is not None and end < start:
        yield (
            f"Training lost what discovery started from: {end:.3f} of these crops are right at "
            f"its end, {start:.3f} were before it."
        )
