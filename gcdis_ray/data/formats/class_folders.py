"""Images in folders that are named by their classes, as sets for classification lie.

``images/cat/1.jpg`` shows a cat, and so does what lies deeper below ``cat``; a file beside the
folders is of no class that is told. No image is read: who does finds its size.

Ids are hashes of names, so that they say nothing of an order of classes, and sets that lie in
different folders agree on a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from gcdis_ray.data.formats.records import CategoryRecord, ImageRecord
from gcdis_ray.data.images.folder_images import LeftOut, image_names
from gcdis_ray.data.images.image_names import id_of_name
from gcdis_ray.errors import DataError
from gcdis_ray.store.source import SourceFolder


class ClassFolders:
    """The images below a folder, by class.

    Args:
        images: the folder that holds the class folders, relative to ``folder``; ``.`` for itself.

    Raises:
        DataError: no class folder with an image.
    """

    federated = False
    labels_images = True
    has_annotations = True

    def __init__(self, folder: SourceFolder, images: str) -> None:
        self.name = folder.uri if images == "." else f"{folder.uri}/{images}"
        self._prefix = "" if images == "." else f"{images}/"
        self.left_out = LeftOut()
        self._names = sorted(image_names(folder, images, self.left_out))
        classes = {_class_of(name) for name in self._names} - {None}
        self._ids = {c: id_of_name(f"class {c}") for c in classes if c is not None}
        if not self._ids:
            raise DataError(
                "no class folder with an image in it",
                where=self.name,
                fix="lay images out as <class name>/<file>, or leave out format: class_folders",
            )
        self.categories = sorted(
            (CategoryRecord(category_id, name) for name, category_id in self._ids.items()),
            key=lambda category: category.category_id,
        )
        self.num_images = len(self._names)

    def category_of(self, name: str) -> int | None:
        """The class of an image, by its name relative to the folder; None for none."""
        of_class = _class_of(name)
        return None if of_class is None else self._ids[of_class]

    def images(self) -> Iterator[ImageRecord]:
        for name in self._names:
            yield ImageRecord(self._image_id(name), name, None, None)

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        """One per image that is in a class folder; its ``id`` is the image's."""
        for name in self._names:
            if (category_id := self.category_of(name)) is not None:
                image_id = self._image_id(name)
                yield {"id": image_id, "image_id": image_id, "category_id": category_id}

    def _image_id(self, name: str) -> int:
        return id_of_name(f"{self._prefix}{name}")  # as in a plain folder


def _class_of(name: str) -> str | None:
    first, slash, _ = name.partition("/")
    return first if slash else None
