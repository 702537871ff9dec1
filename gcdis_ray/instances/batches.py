"""Images through a detector by the batch: others are read ahead, and masks pasted, meanwhile.

For a GPU: it waits for no image file, and for no mask. Images of one padded size alone share a
batch, so that none depends on the others by more than rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

Seen = TypeVar("Seen")
Raw = TypeVar("Raw")
Answer = TypeVar("Answer")

_AHEAD = 8  # images that are there before they are wanted
_WAITING = 64  # images that wait for others of their size, at most
_END = object()


def in_batches(
    images: Iterable[Seen],
    size_of: Callable[[Seen], Hashable],
    most_of: Callable[[Seen], int],
    detect: Callable[[Sequence[Seen]], Sequence[Raw]],
    finish: Callable[[Seen, Raw], Answer],
) -> list[Answer]:
    """``finish(image, detect([image])[0])`` of every image, in order.

    Args:
        images: taken by a thread.
        size_of: images of equal ones may share a batch.
        most_of: how many images like this one a batch may have.
        detect: called in this thread.
        finish: called in another thread.
    """
    groups: dict[Hashable, list[tuple[int, Seen]]] = {}
    answers: dict[int, Future[Answer]] = {}

    def flush(size: Hashable) -> None:
        group = groups.pop(size)
        found = detect([image for _, image in group])
        for (number, image), raw in zip(group, found, strict=True):
            answers[number] = finisher.submit(finish, image, raw)

    with ThreadPoolExecutor(1) as finisher:
        for number, image in enumerate(_read_ahead(images)):
            size = size_of(image)
            groups.setdefault(size, []).append((number, image))
            if len(groups[size]) >= most_of(image):
                flush(size)
            elif sum(map(len, groups.values())) > _WAITING:
                flush(max(groups, key=lambda size: len(groups[size])))
        for size in list(groups):
            flush(size)
        return [answers[number].result() for number in range(len(answers))]


def _read_ahead(images: Iterable[Seen]) -> Iterator[Seen]:
    """The same, taken by a thread of its own some images before they are wanted."""
    context, source = copy_context(), iter(images)  # bytes read there are counted here
    with ThreadPoolExecutor(1) as reader:

        def ask() -> Future[Seen]:
            return reader.submit(context.run, next, source, _END)  # pyright: ignore[reportArgumentType, reportReturnType]

        asked = deque(ask() for _ in range(_AHEAD))
        while (image := asked.popleft().result()) is not _END:
            asked.append(ask())
            yield image
