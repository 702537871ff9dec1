"""Discovery alone, on a page: which objects belong together.

Objects are whole images (propose.source: image), masks from elsewhere, or what a class-agnostic
proposer finds. Each becomes a crop, a frozen backbone lays it out as a vector (embed), the number
of classes is estimated there (count), and whichever method is chosen sorts crops into known and
novel classes (discover). No segmenter learns from them and nothing is predicted on other images:
what was sorted is scored as far as truth is told (evaluate).

This is generalized category discovery (Vaze, Han, Vedaldi, Zisserman, CVPR 2022) where objects are
images.
"""

from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.stages import (
    count,
    crop,
    curate,
    discover,
    embed,
    evaluate,
    ground_truth,
    ingest,
    propose,
)

RECIPE = Recipe(
    nodes=(
        Node("ingest", ingest),
        Node("ground_truth", ground_truth, configured_by="ingest"),  # its other, sealed half
        Node("propose", propose),
        Node("crop", crop),
        Node("embed", embed),
        Node("count", count),
        Node("discover", discover),
        Node("curate", curate),  # what people decided; without, it changes nothing
        Node("evaluate", evaluate),
    )
)
