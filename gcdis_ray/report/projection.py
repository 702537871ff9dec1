"""Vectors as points of a plane: by PCA, or, if it is installed and asked for, by UMAP."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

from gcdis_ray.errors import ConfigError

if TYPE_CHECKING:  # the command line asks for PROJECTIONS, which costs nothing so
    import numpy as np
    from numpy.typing import NDArray

Projection = Literal["pca", "umap"]
PROJECTIONS: tuple[str, ...] = get_args(Projection)


def check_projection(how: Projection) -> None:
    """Whether it can be had here.

    Raises:
        ConfigError: it is not installed.
    """
    if how == "umap" and find_spec("umap") is None:
        raise ConfigError(
            "UMAP is not installed",
            where="--map umap",
            fix="install the extra: pip install 'gcdis-ray[umap]'; or leave --map out",
        )


def project(rows_ND: NDArray[np.floating], how: Projection = "pca") -> NDArray[np.float64]:
    """The rows as points (N, 2), the same for equal rows. Fewer than three lie along a line.

    Raises:
        ConfigError: it is not installed.
    """
    if how == "umap":
        check_projection(how)
        return _umap(rows_ND)
    return principal_components(rows_ND)


def principal_components(rows_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    """The two leading principal components (N, 2), zeros where there is but one; signs are fixed,
    so that the drawing never flips."""
    import numpy as np
    import torch

    from gcdis_ray.clustering.spaces import principal

    rows = torch.from_numpy(np.ascontiguousarray(rows_ND, dtype=np.float64))
    space = principal(rows, 2)
    assert space.axes_DC is not None
    points = ((rows - space.mean_D) @ space.axes_DC).numpy()
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _umap(rows_ND: NDArray[np.floating]) -> NDArray[np.float64]:
    import numpy as np
    from umap import UMAP  # pyright: ignore[reportMissingImports]

    if len(rows_ND) < 4:
        return principal_components(rows_ND)
    neighbours = min(15, len(rows_ND) - 1)
    plane = UMAP(n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1)
    return np.asarray(plane.fit_transform(rows_ND.astype(np.float32)), dtype=np.float64)
