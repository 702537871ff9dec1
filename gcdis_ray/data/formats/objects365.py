"""Objects365 v2 annotation files: COCO's, boxes only, images in numbered patches.

The files name images as they lay on their makers' disk (``images/v1/patch8/NAME.jpg``); the
archives unpack to ``patch8/NAME.jpg``, which is what a set's image folder is expected to hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gcdis_ray.data.formats.coco import CocoFile
from gcdis_ray.store.source import SourceFolder

_AS_PUBLISHED = re.compile(r"images/v\d+/(patch\d+/.+)", re.DOTALL)


class Objects365File(CocoFile):
    """Args: except_flagged: leave out annotations with one of these flags set (``isfake``: drawn or
    printed, ``isreflected``: seen in a mirror)."""

    def __init__(
        self, folder: SourceFolder, name: str, except_flagged: Collection[str] = ()
    ) -> None:
        super().__init__(folder, name)
        self.except_flagged = tuple(except_flagged)

    @staticmethod
    def names_images_so(file_name: Any) -> bool:
        return isinstance(file_name, str) and bool(_AS_PUBLISHED.fullmatch(file_name))

    def file_name(self, raw: Mapping[str, Any]) -> Any:
        name = raw.get("file_name")
        match = _AS_PUBLISHED.fullmatch(name) if isinstance(name, str) else None
        return match[1] if match else name

    def annotations(self, passed_over: Counter[str] | None = None) -> Iterator[dict[str, Any]]:
        for raw in super().annotations():
            flagged = next((flag for flag in self.except_flagged if raw.get(flag)), None)
            if flagged is None:
                yield raw
            elif passed_over is not None:
                passed_over[flagged] += 1
