"""A trained segmenter applied to images that nothing annotates: what ``gcdis predict`` runs."""

from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.stages import images, model, predict

RECIPE = Recipe(
    nodes=(
        Node("model", model),
        Node("images", images),
        Node("predict", predict),
    )
)
