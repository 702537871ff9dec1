"""Templates become whole pages: no network, no script, one style sheet named by its hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from gcdis_ray import words
from gcdis_ray.report.findings import average_precision, fraction, plural, signed


def render(template: str, context: Mapping[str, Any], rules: Sequence[str] = ()) -> str:
    """A page from one of the templates beside this module.

    Args:
        rules: of style, after those of ``page.css``.
    """
    sheet = files("gcdis_ray.report").joinpath("page.css").read_text(encoding="utf-8")
    style = "\n".join([sheet, *rules])
    page = (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=Markup(style),  # our own file, and what sections bring
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # no lone surrogate from a path


def fill(part: str, **context: Any) -> Markup:
    """A part of a page from the template of that name in ``parts/``."""
    return Markup(_environment().get_template(f"parts/{part}.html.j2").render(**context))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gcdis_ray.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "plural": plural,
        "duration": duration,
        "file_size": file_size,
        "fraction": fraction,
        "signed": signed,
        "ap": average_precision,
    }
    return environment


def duration(seconds: float | None) -> str:
    return "–" if seconds is None else words.duration(seconds, tenths=True)


def file_size(num_bytes: int | None) -> str:
    return "–" if num_bytes is None else words.size(num_bytes)
