"""What came in, and what of it could not be used."""

from __future__ import annotations

from collections.abc import Iterator

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
    came = f"{plural(splits.get('unlabeled', 0), 'image')} came without any label."
    if labeled := splits.get("labeled", 0):
        known = plural(num_known, "known class", "known classes")
        came = f"{plural(labeled, 'image')} came with objects of {known}; {came}"
    sentences = [came, *_counted(view)] if splits else []
    return Section("quarantine", "Set aside", body, SET_ASIDE, sentences=sentences)


def _counted(view: RunView) -> Iterator[str]:
    """What was counted of image files, besides."""
    made = view.of("images")
    counts = made.manifest.counts if made else {}
    if turned := counts.get("images_turned"):
        yield f"{plural(turned, 'image')} turned as the camera noted in EXIF."
    if ignored := counts.get("images_turn_ignored"):
        yield f"{plural(ignored, 'image')} with a turn in EXIF that was ignored."
    if stretched := counts.get("images_16_bit_stretched"):
        yield f"{plural(stretched, 'image')} of 16 bits stretched by the largest value of each."
    kinds = {
        name.partition(": ")[2]: count
        for name, count in sorted(counts.items())
        if name.startswith("files_left_out: ")
    }
    if kinds:
        listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        yield f"{plural(sum(kinds.values()), 'other file')} in image folders left out ({listed})."
