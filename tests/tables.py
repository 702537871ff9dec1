"""Schemas of all tables that the stages of recipe gcdis give or lay aside, by name."""

from __future__ import annotations

from gcdis_ray.data.sets.annotations import ANNOTATION_RUNS
from gcdis_ray.instances.external_masks import EXTERNAL_MASKS
from gcdis_ray.recipes.gcdis import RECIPE
from gcdis_ray.stages.ingest import LISTING
from gcdis_ray.store.members import schemas_of

SCHEMAS = {
    "listing": LISTING,
    "annotation_runs": ANNOTATION_RUNS,
    "external_masks": EXTERNAL_MASKS,
}
for _node in RECIPE.nodes:
    SCHEMAS |= schemas_of(_node.stage.GIVES)
