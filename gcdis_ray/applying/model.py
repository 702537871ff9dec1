"""A trained segmenter as a library: ``gcdis_ray.load(bundle).predict(images)``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gcdis_ray.applying.opening import open_trained
from gcdis_ray.applying.trained import SegmentedClass, Trained
from gcdis_ray.data.images.image_check import ImageLimits, check_image
from gcdis_ray.data.images.image_files import ImageFile
from gcdis_ray.errors import ArtifactError, ConfigError, DataError
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.source import source_file

if TYPE_CHECKING:
    from gcdis_ray.instances.detector import Detector, Found

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"
"""A path or ``s3://bucket/key``, turned as its EXIF says; or pixels as they are: a PIL image, or an
array (H, W, 3) uint8 RGB."""


@dataclass(frozen=True)
class Prediction:
    """An object found in an image.

    Args:
        class_index: in ``Model.classes``.
        name, known: of that class.
        score: in [0, 1].
        bbox_xyxy: px of the image; x1, y1 exclusive.
        mask_rle: COCO's compressed run lengths (the ``counts``) of the whole image.
        size: (height, width) px of the image.
    """

    class_index: int
    name: str
    known: bool
    score: float
    bbox_xyxy: tuple[float, float, float, float]
    mask_rle: str
    size: tuple[int, int]

    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool, the image's size."""
        return coco_rle.decode(self.mask_rle, *self.size)


class Model:
    """A trained segmenter in this process. Made by :func:`load`."""

    def __init__(self, trained: Trained, device: str | None = None) -> None:
        """Args:
        device: ``cpu`` or ``cuda``; None: a GPU if torch can use one.

        Raises:
            ArtifactError: weights that are gone, damaged or of another network.
        """
        import torch
        from safetensors.torch import load as load_tensors

        from gcdis_ray.instances.inference import open_detector

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._limits = trained.limits
        self._classes = trained.classes
        weights = load_tensors(trained.read_weights())
        try:
            self._detector: Detector = open_detector(weights, trained.spec, self.device)
        except RuntimeError as error:  # of load_state_dict, or of a device that is not there
            raise ArtifactError(
                f"cannot be opened: {str(error).splitlines()[0]}", where=trained.uri
            ) from error

    @property
    def classes(self) -> tuple[SegmentedClass, ...]:
        """What it can find, by ``class_index``: known classes first, then discovered ones."""
        return self._classes

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        min_score: float | None = None,
        max_per_image: int | None = None,
    ) -> list[list[Prediction]]:
        """Objects of each image, best first: those that ``gcdis predict`` finds in it, bit by bit
        on a CPU with as many threads (``torch.set_num_threads(1)``).

        Args:
            images: one, or any number; an iterable is gone through once, without holding them.
            min_score: in [0, 1]; objects below it are left out. None: as the run had it.
            max_per_image: at least 1, the best of all classes. None: as the run had it.

        Raises:
            DataError: a file that is missing or no image, or an array of another form.
            ConfigError: a limit out of its range.
        """
        from gcdis_ray.instances.detector import Limits

        least = self._limits["min_score"] if min_score is None else min_score
        most = self._limits["max_per_image"] if max_per_image is None else max_per_image
        if not 0 <= least <= 1:
            raise ConfigError(f"must be in [0, 1] (got {least})", where="min_score")
        if most < 1:
            raise ConfigError(f"must be at least 1 (got {most})", where="max_per_image")
        sizes: list[tuple[int, int]] = []
        pixels = _sized(map(_pixels, _each(images)), sizes)
        found = self._detector.find_all(pixels, Limits(least, max_per_image=most, nms_iou=0.5))
        return [
            [self._named(one, size) for one in objects]
            for objects, size in zip(found, sizes, strict=True)
        ]

    def _named(self, found: Found, size: tuple[int, int]) -> Prediction:
        its = self._classes[found.class_index]
        return Prediction(
            its.class_index, its.name, its.known, found.score, found.bbox_xyxy, found.mask_rle, size
        )


def load(path: str | os.PathLike[str], device: str | None = None) -> Model:
    """Open a bundle, or the segmenter of a run.

    Args:
        path: folder or ``s3://bucket/prefix`` of a bundle, storage of a run, or its config file.
        device: ``cpu`` or ``cuda``; None: a GPU if torch can use one.

    Raises:
        ArtifactError: a bundle that is not whole: see :mod:`gcdis_ray.applying.bundle`.
        ConfigError: neither a bundle nor a run with a segmenter lies there.
    """
    return Model(open_trained(os.fspath(path)), device)


def _each(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike]:
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim <= 3:
        return [images]
    return images


def _sized(
    images: Iterable[NDArray[np.uint8]], sizes: list[tuple[int, int]]
) -> Iterator[NDArray[np.uint8]]:
    """The images, and in ``sizes`` their (height, width)."""
    for pixels in images:
        sizes.append((pixels.shape[0], pixels.shape[1]))
        yield pixels


def _pixels(image: ImageLike) -> NDArray[np.uint8]:
    """(H, W, 3) RGB."""
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(
                f"an array {image.shape} of {image.dtype}",
                where="images",
                fix="give (H, W, 3) uint8, RGB",
            )
        return np.ascontiguousarray(image)
    name = os.fspath(image)
    try:
        folder, file = source_file(name, None, "images")
        data = folder.read(file)
        return ImageFile(data, check_image(data, ImageLimits()).turn, name).pixels()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or 'not there'})", where=name) from error
    except DataError as error:
        raise error.at(name, "give a JPEG, PNG or WebP file") from error
