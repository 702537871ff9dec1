"""Generalized class discovery in instance segmentation, on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from gcdis_ray.applying.model import Model

__version__ = "0.1.0"


def load(path: str | os.PathLike[str], device: str | None = None) -> Model:
    """A trained segmenter, to predict with in this process: :func:`gcdis_ray.applying.model.load`.

    >>> model = gcdis_ray.load("bundle")  # doctest: +SKIP
    >>> [(found.name, found.score) for found in model.predict("photo.jpg")[0]]  # doctest: +SKIP

    Args:
        path: folder or ``s3://bucket/prefix`` of a bundle, storage of a run, or its config file.
        device: ``cpu`` or ``cuda``; None: a GPU if torch can use one.

    Raises:
        GcdisError: what is there is no model, or is damaged.
    """
    from gcdis_ray.applying.model import load as open_model  # torch: not before it is needed

    return open_model(path, device)
