"""The metrics' ``detection``: average precision on validation images, and by which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gcdis_ray.evaluation.class_columns import ClassColumns
from gcdis_ray.evaluation.cluster_mapping import OutputMap
from gcdis_ray.evaluation.scored_images import Terms
from gcdis_ray.metrics import discovery

_KINDS = ("mask", "box")


@dataclass(frozen=True)
class Detection:
    """How well detections fit, None for want of ground truth, and on which terms."""

    scores: Mapping[str, Any] | None
    outputs: OutputMap
    terms: Terms
    reason: str = "no ground truth for validation images"  # where there are no scores

    @property
    def ap_of_columns(self) -> Sequence[Mapping[str, float | None]] | None:
        """``mask_ap`` and ``box_ap`` of every class; None where nothing was scored."""
        return list(self.scores["per_class"].values()) if self.scores else None

    def block(self, classes: ClassColumns) -> dict[str, Any]:
        """For the metrics."""
        block: dict[str, Any] = {
            f"{kind}_{name}": discovery.NOTHING for name in ("ap", "ap50") for kind in _KINDS
        }
        block |= {
            "ap_by_frequency": dict.fromkeys(_KINDS),
            "counted_classes": dict.fromkeys(_KINDS),
            "known_weight": dict.fromkeys(_KINDS),
            "scores": None,
            "rules": None,
            "protocol": None,
            "mapping": self._mapping(classes),
            "reason": self.reason,
        }
        return block | self._numbers(self.scores) if self.scores else block

    def _numbers(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "ap_by_frequency": {},
            "counted_classes": {},
            "known_weight": {},
            "scores": {"mask": scores["mask"], "box": scores["box"], **scores["counts"]},
            "rules": self.terms.rules,
            "protocol": scores["protocol"],
            "reason": None if scores["counts"]["objects"] else "no true object in scored images",
        }
        for kind in _KINDS:
            numbers = scores[kind]
            for key, name in (("AP", "ap"), ("AP50", "ap50")) if numbers else ():
                found[f"{kind}_{name}"] = _parts(numbers, key)
            grouped = numbers and self.terms.rules == "lvis"
            found["ap_by_frequency"][kind] = (
                {group: numbers[f"AP{group}"] for group in "rcf"} if grouped else None
            )
            found["counted_classes"][kind] = _parts(numbers, "classes") if numbers else None
            found["known_weight"][kind] = numbers["known_weight"] if numbers else None
        return found

    def _mapping(self, classes: ClassColumns) -> dict[str, Any]:
        rule, ids = self.outputs.rule, self.outputs.categories(classes)
        return {
            "source": rule.source,
            "scope": rule.scope,
            "drop": rule.drop,
            "name": rule.name,
            "leak_free": rule.leak_free,
            "protocol": rule.words(self.terms.iou, self.terms.best, self.terms.kept),
            "note": self.outputs.note,
            "class_to_category": {str(output): category for output, category in ids.items()},
        }


def _parts(numbers: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {"all": numbers[key], **{part: numbers[part][key] for part in ("known", "novel")}}
