"""Ground truth of new images: what is really in them? Sealed, for stages that evaluate alone.

As :mod:`gcdis_ray.stages.ground_truth`; which classes are known, the earlier run says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.stages import ground_truth
from gcdis_ray.stages.ingest_new import Config
from gcdis_ray.store.members import Inputs, optional

if TYPE_CHECKING:
    from gcdis_ray.runtime.base import Work

__all__ = ["GIVES", "ID", "SEEDED", "TAKES", "VERSION", "Config", "forecast", "run", "source"]

ID = "new_truth"
VERSION = 1
TAKES = ("classes", optional("image_index"))
GIVES = ground_truth.GIVES
SEEDED = False

forecast, source, workload = ground_truth.forecast, ground_truth.source, ground_truth.workload


def run(inputs: Inputs, config: Config, work: Work) -> None:
    """Raises:
    DataError: a known class has another name here than in the earlier run.
    """
    plan, known = plan_data(config), inputs.json("classes")
    named = {category.category_id: category.name for category in ground_truth.categories(plan)}
    for row in known:
        if named.get(row["category_id"], row["name"]) != row["name"]:
            raise DataError(
                f"category {row['category_id']} is {named[row['category_id']]!r} here and "
                f"{row['name']!r} in the earlier run",
                where="stages.ingest.unlabeled.annotations",
                fix="number the categories as the earlier run's data do",
            )
    class_of = {row["category_id"]: row["class_index"] for row in known}
    ground_truth.write_truth(plan, class_of, inputs, config, work)
