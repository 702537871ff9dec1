"""Matplotlib figures as SVG that lives inside the page.

Inline SVG takes the page's text colour, so one drawing serves light, dark and print; its text
stays text. The page's content policy forbids style attributes, so they become plain attributes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour; no palette colour is this one

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gcdis",
    "text.parse_math": False,  # class names are user text: a dollar sign is a dollar sign
    "text.usetex": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
}


def draw_svg(
    name: str, label: str, size_in: tuple[float, float], draw: Callable[[Figure], None]
) -> Markup:
    """Let ``draw`` fill a figure and return it as one ``<svg>`` element.

    Args:
        name: prefix of the ids in it, unique in the page.
        label: what the figure shows, for those who do not see it.
        size_in: width and height in inches.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has the font
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure)
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=150, metadata=empty)
    root = ElementTree.fromstring(buffer.getvalue())
    _flatten(root)
    _rename_ids(root, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib.update({"role": "img", "aria-label": label, "class": "figure"})
    # Raw markup is safe here: ElementTree has escaped every text and attribute.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _flatten(root: ElementTree.Element) -> None:
    """Drop namespaces, metadata and style sheets; turn style attributes into attributes."""
    for element in root.iter():
        for child in [c for c in element if _local(c.tag) in ("metadata", "style")]:
            element.remove(child)
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        for part in attributes.pop("style", "").split(";"):
            key, colon, value = part.partition(":")
            if colon:
                attributes[key.strip()] = value.strip()
        attributes.pop("font-family", None)  # the page's own
        attributes.pop("font", None)
        element.attrib.clear()
        element.attrib.update(
            {key: "currentColor" if v == INK else v for key, v in attributes.items()}
        )


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _rename_ids(root: ElementTree.Element, prefix: str) -> None:
    """Keep only ids that are used, made unique by ``prefix``."""
    used: set[str] = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if value.startswith("url(#"):
                used.add(value[5:-1])
                element.attrib[key] = f"url(#{prefix}-{value[5:]}"
            elif key == "href" and value.startswith("#"):
                used.add(value[1:])
                element.attrib[key] = f"#{prefix}-{value[1:]}"
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.attrib["id"] = f"{prefix}-{old}"
