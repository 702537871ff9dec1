"""One live line per stage: done/total, rate, time left. On a terminal it is rewritten in place;
elsewhere (a log file, a Ray job) a line appears at most every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from gcdis_ray.run.pipeline import Event
from gcdis_ray.training.pace import Pace
from gcdis_ray.training.plan import Progress
from gcdis_ray.words import duration, size

LOG_EVERY_S = 10.0
DRAW_EVERY_S = 0.1


class Line:
    """A line of progress: on a terminal it is rewritten in place until one is to be kept; elsewhere
    each is a line of its own.

    Args:
        stream: where it goes; standard error unless given.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.live = self._stream.isatty()
        self.every_s = DRAW_EVERY_S if self.live else LOG_EVERY_S
        self._open = False  # a live line without its end
        self._told_at = 0.0

    def write(self, text: str, keep: bool) -> None:
        if self.live:
            self._stream.write(f"\r\x1b[2K{text}" + ("\n" if keep else ""))
            self._open = not keep
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def tell(self, text: str) -> None:
        """Write a line unless there was one a moment ago."""
        if (now := time.monotonic()) - self._told_at >= self.every_s:
            self._told_at = now
            self.write(text, keep=not self.live)

    def clear(self) -> None:
        """Take a line away that would have been rewritten."""
        if self._open:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
        self._open = False

    def close(self) -> None:
        """End a line that would have been rewritten: what is printed next starts on its own."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
        self._open = False


class Reporter:
    """Turns pipeline events into lines."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: stream: where lines go; standard error unless given."""
        self._line, self._clock = Line(stream), clock
        self.close, self.clear = self._line.close, self._line.clear
        self._began, self._last_shown = 0.0, self._clock()
        self._first: Progress | None = None
        self._first_at = 0.0
        self._note = ""
        self._pace: Pace | None = None  # of a training since the line was last shown

    def __call__(self, event: Event) -> None:
        now = self._clock()
        if event.kind == "start":
            self._began, self._first, self._note, self._pace = now, None, "", None
            self._last_shown = now
            self._line.write(f"  {event.stage:<12} {event.reason}", keep=not self._line.live)
        elif event.kind == "progress" and event.progress:
            self._progress(event.stage, event.progress, now)
        elif event.manifest:
            made = event.manifest.size
            what = f"{made.rows:>8,} rows  {size(made.bytes):>9}"
            if event.kind == "cached":
                self._line.write(
                    f"= {event.stage:<12} {what}  cached {event.manifest.key}", keep=True
                )
                return
            took = duration(now - self._began)
            adopted = f", {event.adopted} finished earlier" if event.adopted else ""
            self._line.write(f"✓ {event.stage:<12} {what}  {took}{adopted}", keep=True)
            for name, count in sorted(event.manifest.counts.items()):
                if count:
                    self._line.write(f"    {name}: {count}", keep=True)

    def _progress(self, stage: str, progress: Progress, now: float) -> None:
        if (
            self._first is None
            or progress.unit != self._first.unit
            or (progress.done < self._first.done)
        ):
            self._first, self._first_at = progress, now
        if progress.pace is None:
            self._pace = None
        else:
            self._pace = self._pace + progress.pace if self._pace else progress.pace
        fresh_note = progress.note != self._note and progress.note.startswith("waiting")
        if now - self._last_shown < self._line.every_s and not fresh_note:
            return
        self._last_shown, self._note = now, progress.note
        text = f"  {stage:<12} {progress.done} {progress.unit}"
        if progress.total:  # 0: nobody knows
            share = 100 * progress.done / progress.total
            text = f"  {stage:<12} {progress.done}/{progress.total} {progress.unit}  {share:3.0f} %"
        gained, elapsed = progress.done - self._first.done, now - self._first_at
        if gained > 0 and elapsed > 0:
            rate = gained / elapsed
            text += f"  {rate:.3g} {progress.unit}/s"
            if progress.total:
                text += f"  {duration((progress.total - progress.done) / rate)} left"
        if self._pace is not None:
            text, self._pace = f"{text}  {self._pace}", None
        self._line.write(f"{text}  {progress.note}".rstrip(), keep=not self._line.live)


class WorkLine:
    """A line of progress for work that is no stage. It is gone when the work is over.

    Args:
        name: of the work, in a word.
    """

    def __init__(
        self,
        name: str,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._reporter = name, Reporter(stream, clock)
        self.clear = self._reporter.clear  # before something else is printed

    def __call__(self, progress: Progress) -> None:
        self._reporter(Event(self._name, "progress", progress=progress))

    def __enter__(self) -> WorkLine:
        return self

    def __exit__(self, *error: object) -> None:
        self.clear()
