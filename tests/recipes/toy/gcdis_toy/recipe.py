"""Coins: toss, guess, grade. And what a recipe may not do."""

from types import SimpleNamespace

from gcdis_ray.recipes.recipe import Node, Recipe
from gcdis_ray.store.members import document
from gcdis_toy import grade, guess, secret, toss

_START = (Node("coins", toss), Node("envelope", secret, configured_by="coins"))

RECIPE = Recipe((*_START, Node("opinion", guess), Node("marks", grade)))

_PEEK = SimpleNamespace(**{**vars(guess), "TAKES": ("tosses", "answers")})
LEAK = Recipe((*_START, Node("opinion", _PEEK), Node("marks", grade)))

_HINT = SimpleNamespace(**{**vars(grade), "ID": "toy_hint", "GIVES": (document("hint"),)})
_HINTED = SimpleNamespace(**{**vars(guess), "ID": "toy_hinted", "TAKES": ("tosses", "hint")})
LATE_LEAK = Recipe(
    (*_START, Node("opinion", guess), Node("hint", _HINT), Node("second_opinion", _HINTED))
)

NOT_A_RECIPE = "coins"
