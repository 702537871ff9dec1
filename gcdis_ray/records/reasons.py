"""Why a record of an annotation or results file is refused: every reader's reasons, by name."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from gcdis_ray.errors import DataError


class Reason(StrEnum):
    """What is wrong with a record."""

    MISSING = "a field that is needed is missing"
    TEXT = "a text where a number belongs"
    NO_NUMBER = "neither number nor text where a number belongs"
    NOT_WHOLE = "a number that is not whole"
    NEGATIVE = "a number below zero"
    TOO_LARGE = "a number beyond what can be told apart or held"
    FLAG = "neither yes nor no"
    NO_IMAGE = "its image is not listed"
    NO_CATEGORY = "its category is not listed"
    NO_SIZE = "the size of its image is needed and not told"
    NO_SHAPE = "neither mask nor box"
    BOX_FORM = "a box that is not four finite numbers"
    BOX_NEGATIVE = "a box of negative width or height"
    BOX_TOO_FAR = "a box beyond any image"
    MASK_KIND = "a mask that is neither polygons nor run lengths"
    POLYGON_FORM = "a polygon that is not a flat list of numbers in a list"
    POLYGON_TOO_FAR = "a polygon beyond any image"
    POLYGON_TOO_LONG = "an outline too long to be drawn"
    RLE_FORM = "run lengths without size or counts, or with odd ones"
    RLE_SIZE = "run lengths of another size than the image's"
    RLE_RUNS = "run lengths that are no mask of their size"
    # The record is well formed, and what it says is of no use to some readers: see below.
    NO_MASK = "a box only"
    MASK_NONE = "a mask without a polygon of three points"
    MASK_EMPTY = "a mask that covers no pixel"
    MASK_OUTSIDE = "a mask that leaves the image"
    BOX_EMPTY = "a box without extent"
    BOX_OUTSIDE = "a box that leaves the image"
    SCORE_RANGE = "a score outside [0, 1]"


# Average precision is defined for these (of a box, where it has one), and bare files are scored
# with them as by COCOeval; who cuts objects out of images or learns from them may not use them.
SCORED_ANYWAY = frozenset(
    {
        Reason.NO_MASK,
        Reason.MASK_NONE,
        Reason.MASK_EMPTY,
        Reason.MASK_OUTSIDE,
        Reason.BOX_EMPTY,
        Reason.BOX_OUTSIDE,
        Reason.SCORE_RANGE,
    }
)


class Refused(DataError):
    """A record that cannot be used.

    Args:
        what: the problem in words, the value seen included.
        reason: the kind of problem.
    """

    def __init__(
        self, what: str, *, reason: Reason, where: str | None = None, fix: str | None = None
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason

    def at(self, where: str, fix: str | None = None) -> Self:
        return type(self)(self.what, reason=self.reason, where=where, fix=fix or self.fix)

    def __reduce__(self):
        return _rebuild, (self.what, self.reason, self.where, self.fix)


def _rebuild(what: str, reason: Reason, where: str | None, fix: str | None) -> Refused:
    return Refused(what, reason=reason, where=where, fix=fix)
