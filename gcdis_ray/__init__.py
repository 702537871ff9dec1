"""Generalized class discovery in instance segmentation, on Ray."""

__version__ = "0.1.0"
