"""The whole report as one HTML file: no network, no script, one style sheet named by its hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gcdis_ray.report import figures, findings
from gcdis_ray.report.assigned import ClusterTruth, Crops, cluster_truths, read_crops_assigned
from gcdis_ray.report.gallery import Thumb, pick_crops, read_crops, thumbs
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.run_scenes import scene_section
from gcdis_ray.report.series import quarantine_summary, read_history, sample_points
from gcdis_ray.report.view import ClassView, RunView

_MAX_THUMBS = 1_300  # about 4.4 kB each, a third more in base64: below 8 MB
_BEST, _DOUBTFUL = 16, 8  # crops of a discovered class, as far as the budget allows
_MAX_POINTS = 4_000
_MAX_HEROES = 18
_TRAINED = ("propose", "discover", "segment")


@dataclass(frozen=True)
class Card:
    """One class in the page."""

    view: ClassView
    size: int
    truth: ClusterTruth
    reliability: float | None
    probability: float | None
    best: list[Thumb]
    doubtful: list[Thumb]


def write_report(view: RunView) -> str:
    """The report on a run, finished or not. Equal views give equal pages.

    Returns:
        one self-contained HTML document of at most about 12 MB.

    Raises:
        ArtifactError: a stored artifact is damaged.
    """
    metrics = view.json("evaluate", "metrics") or {}
    classes = view.classes()
    crops = read_crops_assigned(view)
    cards = class_cards(view, classes, crops, cluster_truths(view, metrics)) if crops else []
    style = _style(classes)
    scenes = scene_section(view, metrics)
    charts = _charts(view, metrics, classes, crops)
    per_class = findings.per_class_rows(metrics)
    context: dict[str, Any] = {
        "view": view,
        "style": Markup(style),  # our own file and colour codes
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "sentences": findings.sentences(view, metrics, crops),
        "tiles": findings.tiles(view, metrics, crops),
        "discovered": [c for c in cards if not c.view.known and c.size],
        "empty": [c.view.name for c in cards if not c.view.known and not c.size],
        "known": [c for c in cards if c.view.known],
        "heroes": [c for c in cards if not c.view.known and c.best][:_MAX_HEROES],
        "first_crops": _first_crops(view) if crops is None else [],
        "scenes": scenes,
        "charts": charts,
        "detection": findings.detection_rows(metrics),
        "per_class": per_class,
        "reasons": findings.reasons(metrics),
        "has_truth": any(c.truth.purity is not None for c in cards),
        "shown": sum(len(c.best) + len(c.doubtful) for c in cards),
        "total": sum(c.size for c in cards),
        "headline": findings.headline(view, crops),
        "versions": _versions(view),
        "protocols": list(findings.protocols(metrics)),
        "quarantine": quarantine_summary(view),
        "config": yaml.safe_dump(dict(view.config), sort_keys=False, allow_unicode=True),
        "missing": [row["name"] for row in view.stages if row["name"] not in view.artifacts],
        "fraction": findings.fraction,
        "ap": findings.average_precision,
        "plural": findings.plural,
        "file_size": _file_size,
        "duration": _duration,
    }
    context["sections"] = _sections(context)
    environment = Environment(
        loader=PackageLoader("gcdis_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(context)
    return page.encode("utf-8", "replace").decode("utf-8")  # no lone surrogate from a path


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that this run can fill."""
    charts, scenes = context["charts"], context["scenes"]
    classes = bool(context["discovered"] or context["known"] or context["first_crops"])
    offered = [
        ("classes", "Classes", classes),
        ("scenes", "Images", bool(scenes and scenes.scenes)),
        ("discovery", "Discovery", "count" in charts or "accuracy" in charts),
        ("clusters", "Clusters", "sizes" in charts),
        ("detection", "Detection", bool(context["detection"] or context["per_class"])),
        ("training", "Training", bool(charts["training"])),
        ("stages", "Stages", True),
        ("quarantine", "Set aside", context["quarantine"] is not None),
        ("reproduce", "Reproduce", True),
    ]
    return [(anchor, title) for anchor, title, there in offered if there]


def _versions(view: RunView) -> list[tuple[str, str]]:
    """Package and the versions that the run's artifacts were made with."""
    found: dict[str, set[str]] = {}
    for artifact in view.artifacts.values():
        for package, version in artifact.manifest.versions.items():
            found.setdefault(package, set()).add(version)
    return [(package, ", ".join(sorted(found[package]))) for package in sorted(found)]


def class_cards(
    view: RunView, classes: Sequence[ClassView], crops: Crops, truths: dict[int, ClusterTruth]
) -> list[Card]:
    """Cards of all classes, largest first, with as many thumbnails as the page can carry."""
    members = {c.class_index: crops.of_class(c.class_index) for c in classes}
    ranked = sorted(classes, key=lambda c: (-len(members[c.class_index]), c.class_index))
    trust = crops.trust()
    wished = sum((_BEST + _DOUBTFUL) // (2 if c.known else 1) for c in classes)
    share = min(1.0, _MAX_THUMBS / max(wished, 1))
    chosen: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    left = _MAX_THUMBS
    for item in ranked:
        here = members[item.class_index]
        scale = share / 2 if item.known else share
        picked = pick_crops(
            crops.crop_index[here],
            trust[here],
            max(1, int(_BEST * scale)),
            int(_DOUBTFUL * scale),
        )
        chosen[item.class_index] = picked if left > 0 else (here[:0], here[:0])
        left -= sum(map(len, chosen[item.class_index]))
    table = view.table("crop", "crops")
    wanted = np.concatenate([part for pair in chosen.values() for part in pair] or [[]])
    rows = read_crops(table, wanted.astype(np.int64).tolist()) if table else {}
    position = {int(index): place for place, index in enumerate(crops.crop_index)}

    def draw(item: ClassView, indices: np.ndarray, what: str) -> list[Thumb]:
        hints = {int(i): _hint(crops, position[int(i)]) for i in indices}
        color = class_color(item.class_index, item.known)
        return thumbs(
            indices.tolist(), rows, color=color, alt=f"{what} of {item.name}", hints=hints
        )

    cards = []
    for item in ranked:
        here = members[item.class_index]
        best, doubtful = chosen[item.class_index]
        cards.append(
            Card(
                item,
                len(here),
                truths.get(item.class_index, ClusterTruth()),
                _mean(crops.reliability[here]),
                _mean(crops.probability[here]),
                draw(item, best, "reliable example"),
                draw(item, doubtful, "doubtful example"),
            )
        )
    return cards


def _hint(crops: Crops, place: int) -> str:
    parts = [f"probability {crops.probability[place]:.2f}"]
    if not np.isnan(crops.reliability[place]):
        parts.append(f"stability {crops.stability[place]:.2f}")
        parts.append(f"reliability {crops.reliability[place]:.2f}")
    return ", ".join(parts)


def _mean(values: np.ndarray) -> float | None:
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else None


def _first_crops(view: RunView, number: int = 60) -> list[Thumb]:
    """Crops spread evenly over the table, for a run that has not sorted them yet."""
    table = view.table("crop", "crops")
    if table is None or not table.num_rows:
        return []
    spread = np.linspace(0, table.num_rows - 1, min(number, table.num_rows)).round()
    indices = spread.astype(np.int64).tolist()
    rows = read_crops(table, indices)
    return thumbs(indices, rows, color="#f2b134", alt="object found", hints={})


def _charts(
    view: RunView, metrics: dict[str, Any], classes: Sequence[ClassView], crops: Crops | None
) -> dict[str, Any]:
    """Every chart that the run can fill by now; the others are absent."""
    charts: dict[str, Any] = {"training": {}}
    if count := view.json("count", "class_count"):
        truth = findings.true_class_count(view, metrics)
        charts["count"] = figures.class_count_figure(count, truth)
        charts["count_method"] = str(count.get("method", ""))
    if accuracy := findings.dig(metrics, "discovery", "accuracy"):
        baseline = findings.dig(metrics, "discovery", "kmeans_accuracy") or {}
        charts["accuracy"] = figures.accuracy_figure(accuracy, baseline)
    if crops is not None and len(crops.crop_index):
        indices, counts = np.unique(crops.class_index, return_counts=True)
        sizes = dict(zip(indices.tolist(), counts.tolist(), strict=True))
        charts["sizes"] = figures.size_figure(classes, sizes)
        charts["trust"] = figures.trust_figure(_trust_columns(crops, classes))
        charts["map"], charts["map_points"] = _embedding_map(view, classes, crops)
    if bins := [b for b in metrics.get("reliability_bins") or [] if b["num_crops"]]:
        charts["diagram"] = figures.reliability_figure(bins)
    for stage in _TRAINED:
        if history := read_history(view, stage):
            charts["training"][stage] = figures.training_figure(stage, history)
    return charts


def _trust_columns(
    crops: Crops, classes: Sequence[ClassView]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    novel = np.isin(crops.class_index, [c.class_index for c in classes if not c.known])
    columns = {"probability": crops.probability}
    if not np.isnan(crops.reliability).all():
        columns |= {"stability": crops.stability, "reliability": crops.reliability}
    finite = {title: ~np.isnan(values) for title, values in columns.items()}
    return {
        title: (values[~novel & finite[title]], values[novel & finite[title]])
        for title, values in columns.items()
    }


def _embedding_map(
    view: RunView, classes: Sequence[ClassView], crops: Crops
) -> tuple[Markup | None, int]:
    """Crops before and after discovery, in the colours of the classes they ended in."""
    final = dict(zip(crops.crop_index.tolist(), crops.class_index.tolist(), strict=True))
    panels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for title, stage, member in (
        ("before: frozen embedding", "embed", "embeddings"),
        ("after: discovery", "discover", "assignments"),
    ):
        sampled = sample_points(view, stage, member, _MAX_POINTS)
        if sampled is not None:
            index, points = sampled
            unlabeled = np.array([i in final for i in index.tolist()])
            colors = np.array([final[i] for i in index[unlabeled].tolist()], dtype=np.int64)
            panels[title] = (points[unlabeled], colors)
    if not panels:
        return None, 0
    return figures.embedding_figure(panels, classes), max(len(p) for p, _ in panels.values())


def _style(classes: Sequence[ClassView]) -> str:
    sheet = files("gcdis_ray.report").joinpath("page.css").read_text(encoding="utf-8")
    colors = (f".k{c.class_index}{{--k:{class_color(c.class_index, c.known)}}}" for c in classes)
    return sheet + "\n".join(colors)


def _file_size(size: int | None) -> str:
    if size is None:
        return "–"
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes} min {rest:02d} s"
        if minutes < 60
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )
