"""A part of a run's report, as a stage offers it: enough to place it and to sum it up.

.. code-block:: python

    def sections(view):
        rows = view.table("outlines").num_rows
        return [Section("outlines", "Outlines", Markup("<p>{} were drawn.</p>").format(rows))]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

CLASSES, IMAGES, DISCOVERY, CLUSTERS, DIAGNOSTICS, DETECTION = 10, 20, 30, 40, 50, 60
TRAINING, STAGES, SET_ASIDE, REPRODUCE = 70, 80, 90, 100


@dataclass(frozen=True)
class Tile:
    """One big number with its meaning and a note.

    Args:
        hot: it is about what is new.
        rank: it comes after tiles of a lower rank, whatever the order of their sections.
    """

    label: str
    value: str
    note: str
    hot: bool = False
    rank: int = 0


@dataclass(frozen=True)
class Leaf:
    """A page in the folder beside the report, for what is too much for one page.

    Args:
        name: of the file; a section links to it below the view's ``beside``.
        title: of the page.
        body: HTML.
        style: rules of CSS that the body needs.
    """

    name: str
    title: str
    body: str
    style: str = ""


@dataclass(frozen=True)
class Section:
    """One section of the page. What is not :class:`~markupsafe.Markup` is shown as plain text.

    Of several with one anchor the last that is offered counts: a later stage, which knows more, may
    show again what an earlier one has shown.

    Args:
        anchor: id of the section, unique on the page.
        title: in the list of sections, and over the body unless there is a ``heading``.
        body: HTML, or a function that makes it, which is called only if the section counts.
            Without any the section itself is left out, and the rest of it is still told.
        rank: results come first; the constants of this module say where ours are.
        tiles: for the top of the page.
        sentences: for the summary, in the order of the stages.
        headline: of the page; the first on the page counts.
        aside: beside the summary, as ``body``; the first on the page counts.
        definitions: how its numbers are defined, each a name and a text.
        style: rules of CSS that the body needs.
        leaves: pages beside the report, made only if the section counts.
    """

    anchor: str
    title: str
    body: str | Callable[[], str] = ""
    rank: int = DISCOVERY
    heading: str = ""
    tiles: Sequence[Tile] = ()
    sentences: Sequence[str] = ()
    headline: str = ""
    aside: str | Callable[[], str] = ""
    definitions: Sequence[tuple[str, str]] = ()
    style: str = ""
    leaves: Callable[[], Iterable[Leaf]] = tuple


def arrange(offered: Iterable[Section]) -> list[Section]:
    """Those that count, with their HTML made, in the order in which each was first offered."""
    counting = {section.anchor: section for section in offered}
    return [
        replace(section, body=_made(section.body), aside=_made(section.aside))
        for section in counting.values()
    ]


def _made(html: str | Callable[[], str]) -> str:
    return html if isinstance(html, str) else html()
