"""A recipe of another package: a coin with a hidden bias, tossed and guessed."""
