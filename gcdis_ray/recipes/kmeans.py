"""k-means on frozen embeddings, on a page: what discovery gives without any training.

Objects are found as in recipe gcdis (propose), become crops, and a frozen backbone lays every crop
out as a vector (embed); the number of classes is estimated there (count). Discovery is k-means over
these vectors. By default it is the semi-supervised k-means of Vaze et al. (Generalized Category
Discovery, CVPR 2022): the first centres are the means of the labeled crops of each known class,
further ones are placed among the unlabeled crops far from all others (k-means++); labeled crops
never leave the cluster of their class, unlabeled ones go where they are nearest, and centres move
to the means of their clusters until they rest. Or it is plain k-means, whose clusters are matched
one to one to the known classes by the labeled crops in them.

A crop, seen or new, is in the class of the nearest centre; a softmax over the cosines to all
centres gives probabilities. There are no earlier weights to compare, so a label is trusted by its
margin, the ratio of the two largest probabilities, ranked within its class (label). From there on
all is as in recipe gcdis: the segmenter learns from labels and weighted pseudo-labels.
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
        Node("discover", discover, fixes={"method": "kmeans"}),
        Node("curate", curate),  # what people decided; without, it changes nothing
        Node("label", label),
        Node("segment", segment),
        Node("predict", predict),
        Node("evaluate", evaluate),
    )
)
