"""Images by the batch: order, sizes, and what happens in which thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from gcdis_ray.errors import DataError
from gcdis_ray.instances import batches
from gcdis_ray.instances.batches import in_batches
from gcdis_ray.store.meter import count, metering


def words(values: list[str], *, fail_at: int = -1) -> Iterator[str]:
    for number, value in enumerate(values):
        if number == fail_at:
            raise DataError("photo is broken")
        count(read_bytes=1)
        yield value


def run(values: Iterator[str], **changes) -> tuple[list[str], list[list[str]]]:
    """Lengths are the sizes; the answer to a word is the word twice. Also the batches made."""
    made: list[list[str]] = []

    def detect(batch):
        made.append(list(batch))
        return [word * 2 for word in batch]

    steps = dict(size_of=len, most_of=lambda word: 3, detect=detect, finish=lambda a, b: (a, b))
    answers = in_batches(values, **(steps | changes))
    return answers, made


def test_answers_come_in_order_and_sizes_stay_apart():
    values = ["a", "bb", "c", "dd", "e", "f", "ggg"]
    with metering() as meter:
        answers, made = run(words(values))
    assert answers == [(value, value * 2) for value in values]
    assert made == [["a", "c", "e"], ["bb", "dd"], ["f"], ["ggg"]]
    assert meter.read_bytes == len(values)  # counted though another thread read them
    assert run(words([])) == ([], [])


def test_few_wait_for_others_of_their_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "_WAITING", 2)
    _, made = run(words(["a", "bb", "cc", "d", "ee"]))
    assert made[0] == ["bb", "cc"]


def test_others_are_read_and_finished_while_one_batch_is_looked_at():
    """The detector waits for the reader to be ahead, and for the answer to its first batch: if all
    happened in one thread, that would be for ever."""
    read, finished = threading.Event(), threading.Event()

    def source() -> Iterator[str]:
        yield from "ab"
        read.set()
        yield "c"

    calls = []

    def detect(batch):
        calls.append(batch)
        assert read.wait(30)
        assert len(calls) == 1 or finished.wait(30)
        return batch

    def finish(word, raw):
        finished.set()
        return word

    answers, _ = run(source(), most_of=lambda word: 1, detect=detect, finish=finish)
    assert answers == ["a", "b", "c"]


@pytest.mark.parametrize("fail_at", [0, 4])
def test_a_mistake_of_any_thread_arrives(fail_at: int):
    with pytest.raises(DataError, match="photo is broken"):
        run(words(["a"] * 6, fail_at=fail_at))

    def refuse(word, raw):
        raise DataError("no mask")

    with pytest.raises(DataError, match="no mask"):
        run(words(["a"]), finish=refuse)
