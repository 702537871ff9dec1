"""A trained segmenter by where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gcdis_ray.applying.bundle import has_bundle, read_bundle
from gcdis_ray.applying.trained import Trained, of_run
from gcdis_ray.run.opened import open_run
from gcdis_ray.store.storage import open_storage


def open_trained(place: str, overrides: Sequence[str] = ()) -> Trained:
    """A bundle, or the segmenter of a run.

    Args:
        place: a bundle's folder or ``s3://bucket/prefix``; or what
            :func:`~gcdis_ray.run.opened.open_run` takes.
        overrides: of a config file.

    Raises:
        ArtifactError: a bundle that is not whole, see
            :func:`~gcdis_ray.applying.bundle.read_bundle`.
        ConfigError: there is neither, or no segmenter has been trained.
    """
    if place.startswith("s3://") or Path(place).is_dir():
        storage = open_storage(place)
        if has_bundle(storage):
            return read_bundle(storage)
    return of_run(open_run(place, overrides))
