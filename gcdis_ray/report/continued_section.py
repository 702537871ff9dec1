"""What a continued run did to the classes of the earlier one: crops old and new side by side."""

from __future__ import annotations

from gcdis_ray.report.section import Section
from gcdis_ray.report.view import RunView


def continued_section(view: RunView) -> Section:
    return Section("continued", "Continued")
