"""Recipes: a paper as a tuple of stages. One file per paper; the file's name is the recipe's."""
