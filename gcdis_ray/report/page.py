"""The whole report of a run as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from gcdis_ray.report import findings
from gcdis_ray.report.assigned import cluster_truths, read_crops_assigned
from gcdis_ray.report.cards import class_cards, first_crops
from gcdis_ray.report.charts import run_charts
from gcdis_ray.report.html import render
from gcdis_ray.report.palette import class_color
from gcdis_ray.report.run_pictures import picture_section
from gcdis_ray.report.series import quarantine_summary
from gcdis_ray.report.view import RunView
from gcdis_ray.words import size

_MAX_HEROES = 12


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
    pictures = picture_section(view, metrics)
    charts = run_charts(view, metrics, classes, crops)
    per_class = findings.per_class_rows(metrics)
    context: dict[str, Any] = {
        "view": view,
        "sentences": findings.sentences(view, metrics, crops),
        "tiles": findings.tiles(view, metrics, crops),
        "discovered": [c for c in cards if not c.view.known and c.size],
        "empty": [c.view.name for c in cards if not c.view.known and not c.size],
        "known": [c for c in cards if c.view.known],
        "heroes": [c for c in cards if not c.view.known and c.best][:_MAX_HEROES],
        "first_crops": first_crops(view) if crops is None else [],
        "pictures": pictures,
        "charts": charts,
        "detection": findings.detection_rows(metrics),
        "by_frequency": findings.frequency_rows(metrics),
        "detection_facts": findings.detection_facts(metrics),
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
        "file_size": _file_size,
    }
    context["sections"] = _sections(context)
    colors = [f".k{c.class_index}{{--k:{class_color(c.class_index, c.known)}}}" for c in classes]
    return render("page.html.j2", context, colors)


def _sections(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Anchors and titles of the sections that this run can fill."""
    charts, pictures = context["charts"], context["pictures"]
    classes = bool(context["discovered"] or context["known"] or context["first_crops"])
    offered = [
        ("classes", "Classes", classes),
        ("pictures", "Images", bool(pictures and pictures.pictures)),
        ("discovery", "Discovery", "count" in charts or "accuracy" in charts),
        ("clusters", "Clusters", "sizes" in charts),
        ("diagnostics", "Diagnostics", bool(charts["diagnostics"])),
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


def _file_size(num_bytes: int | None) -> str:
    return "–" if num_bytes is None else size(num_bytes)
