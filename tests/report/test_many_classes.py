"""Thousands of classes are a page that stays small; the rest lies beside it."""

from __future__ import annotations

import pytest
from many_classes import many_classes
from page_elements import Elements

from gcdis_ray.recipes.gcdis import RECIPE
from gcdis_ray.report.gallery import Look, Thumb
from gcdis_ray.report.page import Report, write_report
from gcdis_ray.run.report import offered_sections


def _report(*sizes: int) -> Report:
    view = many_classes(*sizes)
    return write_report(view, offered_sections({n.name: n.stage for n in RECIPE.nodes}, view))


def _check(report: Report, num_classes: int) -> Elements:
    """Every class is on the page; every link leads to a card on it or beside it."""
    parsed = Elements(report.page)
    assert parsed.misnested == []
    anchors = {("", str(a["id"])) for _, a in parsed.found if "id" in a}
    for name, text in report.leaves:
        leaf = Elements(text)
        assert leaf.misnested == []
        assert not leaf.of("script")
        anchors |= {(f"report_files/{name}", str(a["id"])) for _, a in leaf.found if "id" in a}
    links = [str(a["href"]) for a in parsed.of("a")]
    classes = [link for link in links if "#class-" in link]
    assert len({link.partition("#class-")[2] for link in classes}) == num_classes
    for link in links:
        assert not link.startswith(("/", "http"))
        assert tuple(link.split("#")) in anchors
    return parsed


def test_some_hundred_classes_are_on_the_page_or_beside_it(monkeypatch):
    def draw(_: object, looks: dict[int, Look], __: object) -> dict[int, Thumb]:
        return {
            i: Thumb("data:image/jpeg,", look.alt, look.hint, 1, 1) for i, look in looks.items()
        }

    monkeypatch.setattr("gcdis_ray.report.cards.draw_thumbs", draw)
    report = _report(200, 70, 4)
    assert "160 more classes are in the table below" in report.page
    parsed = _check(report, 200)
    assert len([1 for tag, a in parsed.found if tag == "article"]) == 40
    assert "known classes (70 classes)" in report.page


@pytest.mark.thorough
def test_three_thousand_classes_are_a_page_of_a_few_megabytes():
    report = _report(3_000, 400, 6)
    assert len(report.page.encode()) < 8_000_000
    assert len(_check(report, 3_000).found) < 50_000
