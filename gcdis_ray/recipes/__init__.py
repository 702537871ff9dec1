"""Recipes: a paper as a list of nodes. One file per paper; the file's name is the recipe's."""
