"""Generalized Class Discovery in Instance Segmentation (Hoang, Lee, Kang; AAAI 2025), on a page.

Labeled images teach a class-agnostic segmenter (propose) that finds objects in unlabeled images.
Every object becomes a crop; one model with soft attention and an instance-wise temperature sorts
crops into known and novel classes (discover); each pseudo-label is trusted by its rank within its
class (label); the final segmenter learns from labels and weighted pseudo-labels (segment).
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
    label,
    predict,
    propose,
    segment,
)

RECIPE = Recipe(
    nodes=(
        Node("ingest", ingest),
        Node("ground_truth", ground_truth, configured_by="ingest"),  # its other, sealed half
        Node("propose", propose),
        Node("crop", crop),
        Node("embed", embed),
        Node("count", count),
        Node("discover", discover),  # method gcdis unless the config names another
        Node("curate", curate),  # what people decided; without, it changes nothing
        Node("label", label),
        Node("segment", segment),
        Node("predict", predict),
        Node("evaluate", evaluate),
    )
)
