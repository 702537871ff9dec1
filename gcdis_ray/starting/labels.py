"""What is annotated on labeled images, and on those alone: it decides what kind of run fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from gcdis_ray.data.formats.records import CategoryRecord
from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.splits import DataPlan, plan_data
from gcdis_ray.records.fields import whole_number
from gcdis_ray.training.plan import Progress, Show

_AT_ONCE = 4096


@dataclass(frozen=True)
class Labels:
    """Crowds are not counted.

    Args:
        num_images: of every set.
        objects: of known classes, on labeled images.
        masks: of these, with a mask.
        most_per_image: objects of whatever class on one labeled image.
        shown: known classes that have one.
        hidden: known classes that have none: nothing could be learned about them.
        others: classes of the labeled set's files that are not known.
    """

    num_images: Mapping[str, int]
    objects: int
    masks: int
    most_per_image: int
    shown: tuple[CategoryRecord, ...]
    hidden: tuple[CategoryRecord, ...]
    others: int

    @property
    def are_images(self) -> bool:
        """Whether every labeled image has one object: then the image may be it."""
        return self.most_per_image <= 1


def read_labels(config: DataConfig, show: Show = lambda progress: None) -> Labels:
    """Looks the labeled set's annotations through, unchecked.

    Args:
        show: how many it has looked through.

    Raises:
        DataError: see :func:`gcdis_ray.data.sets.splits.plan_data`.
    """
    plan = plan_data(config)
    known = {c.category_id for c in plan.known}
    masks, per_image, per_class = 0, Counter[int](), Counter[int]()
    for row, raw in _annotations(plan, show):
        category_id = whole_number(raw.get("category_id"))
        if row < 0 or raw.get("iscrowd"):
            continue
        per_image[row] += 1
        if category_id in known:
            per_class[category_id] += 1
            masks += bool(raw.get("segmentation"))
    source = plan.sets["labeled"].source
    return Labels(
        num_images={split: len(images) for split, images in plan.images.items()},
        objects=per_class.total(),
        masks=masks,
        most_per_image=max(per_image.values(), default=0),
        shown=tuple(c for c in plan.known if per_class[c.category_id]),
        hidden=tuple(c for c in plan.known if not per_class[c.category_id]),
        others=len(source.categories) - len(known) if source else 0,
    )


def _annotations(plan: DataPlan, show: Show) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row of the labeled image or -1, annotation)"""
    chosen = plan.sets["labeled"]
    rest = iter(chosen.source.annotations()) if chosen.source else iter(())
    done = 0
    while some := list(islice(rest, _AT_ONCE)):
        ids = [whole_number(raw.get("image_id")) for raw in some]
        rows = chosen.images.rows_of(np.array([-1 if i is None else i for i in ids], np.int64))
        yield from zip(rows.tolist(), some, strict=True)
        done += len(some)
        show(Progress(done, 0, "annotations"))
