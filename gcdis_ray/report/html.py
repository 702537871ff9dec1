"""Templates become whole pages: no network, no script, one style sheet named by its hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gcdis_ray import words
from gcdis_ray.report.findings import plural


def render(template: str, context: Mapping[str, Any], rules: Sequence[str] = ()) -> str:
    """A page from one of the templates beside this module.

    Args:
        rules: of style, after those of ``page.css``.
    """
    sheet = files("gcdis_ray.report").joinpath("page.css").read_text(encoding="utf-8")
    style = "\n".join([sheet, *rules])
    environment = Environment(
        loader=PackageLoader("gcdis_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(
        **context,
        style=Markup(style),  # our own file and colour codes
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        plural=plural,
        duration=duration,
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # no lone surrogate from a path


def duration(seconds: float | None) -> str:
    return "–" if seconds is None else words.duration(seconds, tenths=True)
