"""What came in, and what of it could not be used."""

from __future__ import annotations

from markupsafe import Markup

from gcdis_ray.report.findings import plural
from gcdis_ray.report.html import fill
from gcdis_ray.report.section import SET_ASIDE, Section
from gcdis_ray.report.series import image_counts, quarantine_summary
from gcdis_ray.report.view import RunView


def set_aside_section(view: RunView) -> Section:
    """Records that were set aside, whichever stage did; and how many images there are."""

    def body() -> Markup:
        quarantine = quarantine_summary(view)
        return Markup("") if quarantine is None else fill("quarantine", quarantine=quarantine)

    splits = image_counts(view)
    num_known = sum(1 for c in view.classes() if c.known)
    came = (
        f"{plural(splits.get('labeled', 0), 'image')} came with objects of "
        f"{plural(num_known, 'known class', 'known classes')}; "
        f"{plural(splits.get('unlabeled', 0), 'image')} came without any label."
    )
    return Section("quarantine", "Set aside", body, SET_ASIDE, sentences=[came] if splits else [])
