"""PASCAL VOC segmentation: a list of image names, and two palette PNGs per image with masks.

Everingham et al., "The PASCAL Visual Object Classes (VOC) challenge", IJCV 2010. In
``SegmentationObject`` every object has a colour index of its own, in ``SegmentationClass`` that of
its class; 255 is void: borders and what is too hard to tell, which belongs to no object.
"""

from __future__ import annotations

import io
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from gcdis_ray.data.formats.coco import check_unique
from gcdis_ray.data.formats.records import CategoryRecord, ImageRecord
from gcdis_ray.data.images.png_chunks import without_metadata
from gcdis_ray.errors import DataError
from gcdis_ray.files.encoding import MARK, check_encoding
from gcdis_ray.masks import coco_rle
from gcdis_ray.store.source import SourceFolder
from gcdis_ray.words import shown

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
_VOID = 255
_NAME = re.compile(r"(?:(\d{4})_)?(\d{6})")
_MAX_LIST_BYTES = 16 << 20
_MAX_PNG_BYTES = 16 << 20
_MAX_PIXELS = 50_000_000
_FIX = "give a list such as VOC2012/ImageSets/Segmentation/train.txt of the official archive"


class VocFile:
    """The images of a list in ``ImageSets/Segmentation``, named as below ``JPEGImages``.

    Image ids are the digits of the names: ``2007_000032`` is 2007000032.

    Raises:
        DataError: missing list, a line that is no image name, one that occurs twice.
    """

    federated = False
    labels_images = False

    def __init__(self, folder: SourceFolder, name: str) -> None:
        self.folder = folder
        self.name = f"{folder.uri}/{name}"
        self.base, slash, _ = name.rpartition("ImageSets/")
        if not slash:
            raise DataError("not below a folder ImageSets", where=self.name, fix=_FIX)
        text = self._read(name, _MAX_LIST_BYTES)
        check_encoding(text[:4], f"{self.folder.uri}/{name}")
        lines = text.removeprefix(MARK).decode("ascii", "replace").splitlines()
        self.names = [line.split()[0] for line in lines if line.strip()]
        ids = array("q")
        for position, image in enumerate(self.names):
            match = _NAME.fullmatch(image)
            if not match:
                where = f"{self.name}: line {position + 1}"
                raise DataError(f"{shown(image)} is no image name", where=where, fix=_FIX)
            ids.append(int((match[1] or "") + match[2]))
        check_unique(ids, self.name)
        self.ids = ids
        self.categories = [CategoryRecord(i, name) for i, name in enumerate(CLASSES, 1)]
        self.has_annotations = folder.has_folder(f"{self.base}SegmentationObject")
        self.num_images = len(ids)

    def images(self) -> Iterator[ImageRecord]:
        """Sizes are those in the headers of the mask files.

        Raises:
            DataError: an image without mask file, or one that is no PNG.
        """
        for image_id, name in zip(self.ids, self.names, strict=True):
            path = f"{self.base}SegmentationObject/{name}.png"
            yield ImageRecord(image_id, f"{name}.jpg", *self._size(path))

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        """One per object: mask as run lengths, ``id`` = 256 image id + colour index.

        Raises:
            DataError: missing or damaged mask file, two of different sizes.
        """
        for image_id, name in zip(self.ids, self.names, strict=True):
            object_HW = self._indices(f"{self.base}SegmentationObject/{name}.png")
            class_HW = self._indices(f"{self.base}SegmentationClass/{name}.png")
            if object_HW.shape != class_HW.shape:
                raise DataError(
                    f"objects {object_HW.shape} and classes {class_HW.shape} differ in size",
                    where=f"{self.name}: {name}",
                )
            for index in np.unique(object_HW):
                if index in (0, _VOID):
                    continue
                mask_HW = object_HW == index
                classes = np.bincount(class_HW[mask_HW], minlength=256)
                yield {
                    "id": 256 * image_id + int(index),
                    "image_id": image_id,
                    "category_id": int(classes[:_VOID].argmax()),  # none but 0: no category
                    "segmentation": {"size": [*mask_HW.shape], "counts": coco_rle.encode(mask_HW)},
                    "iscrowd": 0,
                }

    def _read(self, name: str, limit: int, head: bool = False) -> bytes:
        """At most ``limit`` bytes; more are an error unless only the ``head`` is wanted."""
        where = f"{self.folder.uri}/{name}"
        try:
            with self.folder.open(name) as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise DataError("no such file", where=where, fix=_FIX) from None
        except OSError as error:
            raise DataError(error.strerror or str(error), where=where) from None
        if len(data) > limit and not head:
            raise DataError(f"more than {limit} bytes", where=where)
        return data

    def _size(self, name: str) -> tuple[int, int]:
        """(height_px, width_px): bytes 16 to 24 of a PNG, after signature and chunk head."""
        data = self._read(name, 24, head=True)
        if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
            raise DataError("not a PNG file", where=f"{self.folder.uri}/{name}")
        width_px, height_px = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        if not 0 < width_px * height_px <= _MAX_PIXELS:
            raise DataError(
                f"{height_px} x {width_px} pixels, at most {_MAX_PIXELS} are allowed",
                where=f"{self.folder.uri}/{name}",
            )
        return height_px, width_px

    def _indices(self, name: str) -> np.ndarray:
        """(H, W) uint8 palette indices."""
        from PIL import Image

        self._size(name)  # before a pixel is decoded
        data = self._read(name, _MAX_PNG_BYTES)
        where = f"{self.folder.uri}/{name}"
        try:
            with Image.open(io.BytesIO(without_metadata(data)), formats=["PNG"]) as image:
                if image.mode not in ("P", "L"):
                    raise DataError(f"a PNG of mode {image.mode}, not palette", where=where)
                return np.asarray(image)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"damaged PNG ({error})"[:200], where=where) from None
