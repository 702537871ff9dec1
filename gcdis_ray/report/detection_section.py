"""How well objects of known and novel classes were found and masked in new images, class by class;
without predictions, how well those that a run has sorted were sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from gcdis_ray.report import findings
from gcdis_ray.report.findings import average_precision, dig
from gcdis_ray.report.html import fill
from gcdis_ray.report.section import DETECTION, Section, Tile


def detection_section(metrics: Mapping[str, Any]) -> Section:
    """Average precision by group of classes and class by class, as an evaluation has measured."""

    detection, per_class = findings.detection_rows(metrics), findings.per_class_rows(metrics)

    def body() -> Markup:
        if not (detection or per_class):
            return Markup("")
        return fill(
            "detection",
            detection=detection,
            by_frequency=findings.frequency_rows(metrics),
            facts=findings.detection_facts(metrics) if detection else [],
            per_class=per_class,
        )

    return Section(
        "detection",
        "Detection" if detection else "By class",
        body,
        DETECTION,
        heading="Finding and masking" if detection else "Class by class",
        tiles=list(_tiles(metrics)),
    )


def _tiles(metrics: Mapping[str, Any]) -> Iterator[Tile]:
    for group in ("novel", "known"):
        ap = dig(metrics, "detection", "mask_ap", group)
        if ap is not None:
            box = dig(metrics, "detection", "box_ap", group)
            note = f"box AP {average_precision(box)}" if box is not None else "IoU .50 to .95"
            yield Tile(f"mask AP, {group}", average_precision(ap), note, hot=group == "novel")
