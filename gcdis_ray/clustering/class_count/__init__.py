"""How many classes are there? From frozen embeddings and the labels of the known classes."""
