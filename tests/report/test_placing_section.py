"""The report shows how crops were placed, and which method withheld labels found best."""

from __future__ import annotations

from typing import Any

from synthetic_run import artifact

from gcdis_ray.report.placing_section import placing_section
from gcdis_ray.report.view import RunView


def entry(clusterer: str, space: str, stretch: float | None, score: float) -> dict[str, Any]:
    row = {"clusterer": clusterer, "space": space, "stretch": stretch, "deviation": 0.02}
    return row | {"known": score + 0.1, "novel": None, "score": score}


TRIED = [
    entry("linkage", "whitened 8", 0.9, 0.81),
    entry("linkage", "<whitened> 8", 1.1, 0.8),
    entry("semi-supervised k-means", "raw", None, 0.71),
]
CANDIDATES = [
    {"method": "linkage", "known": 0.8, "novel": 0.7, "score": 0.75, "chosen": False},
    {"method": "simgcd", "known": 0.9, "novel": 0.74, "score": 0.82, "chosen": True},
]


def view(**documents: Any) -> RunView:
    made = artifact("discover", {}, documents)
    return RunView("run", "gcdis", 0, {}, "", [], {"discover": made})


def test_every_choice_and_every_candidate_has_its_row():
    placing = {"tried": TRIED, "num_joined": 2, "num_points": 10, "baselines": TRIED[2:]}
    told = {"candidates": CANDIDATES, "num_crops": 1234}
    section = placing_section(view(placing=placing, candidates=told))
    assert callable(section.body)
    html = str(section.body())
    assert html.count("<svg") == 1
    assert "&lt;whitened&gt; 8" in html
    assert "0.81 ± 0.02" in html
    assert html.count("semi-supervised k-means") == 1  # a baseline that is shown already
    assert "1,234 crops" in html
    (sentence,) = section.sentences
    assert sentence == ("Of the candidates, withheld labels favour simgcd (0.82; linkage 0.75).")


def test_a_run_without_placing_shows_nothing():
    section = placing_section(view())
    assert callable(section.body)
    assert not section.body()
    assert not section.sentences
