"""An earlier run goes on with new images, on a page: nothing is trained again.

What the earlier run has learned is taken over (keep). Its proposer finds objects in the new images
(propose), they become crops and vectors as they did then (crop, embed), and its method says which
class each is of, unless it lies too far from all of them (assign). What fits none makes new
classes, if enough of it is alike (renew); old classes keep their ids until people decide otherwise
(curate). Truth of the new images, where it is told, is sealed for evaluate.
"""

from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.stages import (
    assign,
    crop,
    curate,
    embed_kept,
    evaluate,
    ingest_new,
    keep,
    new_truth,
    propose_kept,
    renew,
)

RECIPE = Recipe(
    nodes=(
        Node("keep", keep),
        Node("ingest", ingest_new),
        Node("ground_truth", new_truth, configured_by="ingest"),  # its other, sealed half
        Node("propose", propose_kept, inherits=True, own=("external",)),
        Node("crop", crop, inherits=True),
        Node("embed", embed_kept, inherits=True),
        Node("assign", assign),
        Node("renew", renew),
        Node("curate", curate),
        Node("evaluate", evaluate),
    )
)
