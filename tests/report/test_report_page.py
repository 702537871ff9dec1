"""The page as a whole: self-contained, safe, accessible, complete for any part of a run."""

import base64
import dataclasses
import hashlib
import itertools
import json
import re
from typing import Any

import pytest
from page_elements import Elements
from synthetic_run import ORDER, make_run, page_of, until

from gcdis_ray.report.view import RunView


@pytest.fixture(scope="module")
def elements(finished_page: str) -> Elements:
    return Elements(finished_page)


def test_nothing_points_outside_the_file(finished_page, elements):
    assert not re.search(r"(https?|wss?|ftp):", finished_page)
    assert "//" not in re.sub(r"base64,[^\"]*", "", finished_page)
    for _, attributes in elements.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), value
    assert "@import" not in finished_page


def test_nothing_runs_code(elements):
    tags = {tag for tag, _ in elements.found}
    assert not tags & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "base",
        "form",
        "foreignobject",
    }
    assert not any(name.startswith("on") for _, a in elements.found for name in a)


def test_the_content_policy_allows_this_style_sheet_and_no_other_style(finished_page, elements):
    policy = next(
        a["content"]
        for a in elements.of("meta")
        if a.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", finished_page, re.S).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert finished_page.count("<style") == 1
    assert not any("style" in attributes for _, attributes in elements.found)


def test_every_picture_says_what_it_shows(elements):
    pictures = elements.of("img")
    assert len(pictures) > 50
    assert all(a["alt"] and a["alt"].strip() for a in pictures)
    for drawing in elements.of("svg"):
        assert drawing.get("aria-hidden") == "true" or drawing["aria-label"]


def test_ids_are_unique_and_every_anchor_leads_somewhere(elements):
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in elements.found if a.get("href", "").startswith("#")}
    assert targets
    assert targets <= set(ids)


def test_tags_nest_and_keyboard_order_is_reading_order(elements):
    assert elements.misnested == []
    assert all(a["tabindex"] in ("0", "-1") for _, a in elements.found if "tabindex" in a)
    assert next(a for tag, a in elements.found if tag == "a")["class"] == "skip"
    levels = [int(t[1]) for t, _ in elements.found if re.fullmatch("h[1-6]", t)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_page_says_what_was_found(finished_page):
    text = re.sub(r"<[^>]+>|\s+", " ", re.sub(r"(?s)<style>.*?</style>", "", finished_page))
    assert "6 classes that nobody had named" in text
    for expected in ("0.74", "k-means 0.53", "interval 9 to 12, truth 10", "0.034"):
        assert expected in text
    assert "known_identity: known classes stand for themselves" in text
    assert "Rules: LVIS, federated." in text
    assert "Outputs and classes: as in RNCDL: one assignment &lt;over all&gt;." in text
    assert "mask AP 0.013 0.25 0.50" in " ".join(text.split())
    words = " ".join(text.split())
    assert "of 2,345 crops; k-means 0.56" in words
    assert "of 125 crops; k-means 0.53" in words
    assert "0.51 found and sorted rightly of all objects; 0.62 have a crop" in words
    assert "62% of all true objects in unlabeled images have such a crop, and 51% were" in words
    assert "0.830 of these crops are right at its end, 0.850 were before it" in words
    assert "placed, before training 0.85 0.90 0.78 0.87 – – –" in words
    assert "k-means, named by the truth 0.56 0.58 0.53 0.56 0.70 0.50 0.13" in words
    assert "mask AR, best 10 0.31 0.35 0.27 0.11 0.36 –" in words
    assert "box AR, best 10" not in words
    assert "objects with a crop 0.62 0.67 0.55 – – –" in words
    assert "truncated image" in text
    for stage in ORDER:
        assert stage in text


def test_the_same_run_gives_the_same_page(finished_page):
    assert page_of(make_run()) == finished_page


def test_the_page_stays_small(finished_page):
    assert len(finished_page.encode()) < 3_000_000


@pytest.mark.parametrize(
    "num_stages",
    [n if n == 7 else pytest.param(n, marks=pytest.mark.thorough) for n in range(len(ORDER))],
)
def test_a_run_stopped_anywhere_has_a_page_that_says_so(finished_run, num_stages):
    page = page_of(until(finished_run, num_stages))
    parsed = Elements(page)
    assert parsed.misnested == []
    assert "This run is not finished" in page
    assert f"{ORDER[-1]}. What those stages would show" in page
    ids = {a["id"] for _, a in parsed.found if "id" in a}
    assert ("classes" in ids) == (num_stages >= ORDER.index("crop") + 1)
    assert ("pictures" in ids) == (num_stages >= 1)
    assert ("detection" in ids) is False


def test_every_discovered_class_has_its_card(finished_run, elements):
    ids = {a["id"] for tag, a in elements.found if tag == "article"}
    assert ids == {f"class-{c.class_index}" for c in finished_run.classes()}


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}{0}$",
    "a\x00b\ud800c",
    "</style></svg><b>{{ 7 * 7 }}",
)


def test_hostile_names_are_only_text():
    names = HOSTILE + tuple(f"{h} novel" for h in HOSTILE)
    run = make_run(num_images=16, class_names=names)
    evil = "</pre><script>x</script>"
    run = dataclasses.replace(
        run,
        name="<b onmouseover=x>",
        storage=evil,
        config={evil: "http-like <i>"},
        stages=[{**row, "state": '"><script>', "key": "<u>"} for row in run.stages],
    )
    page = page_of(run)
    page.encode("utf-8")
    parsed = Elements(page)
    assert parsed.misnested == []
    assert not parsed.of("script")
    assert not parsed.of("u")
    assert not parsed.of("i")
    assert not any(name.startswith("on") for _, a in parsed.found for name in a)
    assert not any(a.get("src") == "x" for a in parsed.of("img"))
    text = "".join(parsed.text)
    assert "<script>alert(1)</script>" in text
    assert "{{ 7 * 7 }}" in text
    assert "\x00" not in page


def _with_document(view: RunView, stage: str, member: str, document: Any) -> RunView:
    """The run with another JSON document in one of its artifacts."""
    artifact = view.artifacts[stage]
    opener = dataclasses.replace(artifact.opener)
    opener.files = {f"{member}.json": json.dumps(document).encode()}
    changed = {stage: dataclasses.replace(artifact, opener=opener)}
    return dataclasses.replace(view, artifacts={**view.artifacts, **changed})


def test_a_doubtful_class_count_says_so_and_shows_the_other_estimators(finished_run, finished_page):
    count = finished_run.json("class_count")
    more = {
        "warning": "the curve is flat: 9 to <i>30</i> classes",
        "combines": ["holdout"],
        "others": [
            {"method": "holdout", "num_classes": 1234, "interval": [17, 4321], "curve": []},
            {"method": "density", "num_classes": 8, "interval": [7, 10], "curve": []},
        ],
    }
    page = page_of(_with_document(finished_run, "count", "class_count", count | more))
    panel = re.search(r"<h3>Number of classes</h3>.*?</table>", page, re.S).group()
    text = " ".join(Elements(panel).text)
    assert "the curve is flat: 9 to <i>30</i> classes" in text
    assert '<p class="pending">' in panel
    assert re.search(r"holdout\s+1,234\s+17 to 4321\s+as a part", text)
    assert re.search(r"density\s+8\s+7 to 10\s+no, only shown", text)
    assert "only shown" not in finished_page


def test_without_ground_truth_numbers_are_left_out_and_the_reason_is_given(finished_run):
    empty = {"all": None, "known": None, "novel": None}
    metrics = {
        "discovery": {
            "accuracy": empty,
            "kmeans_accuracy": empty,
            "reason": "no ground truth for unlabeled images",
        },
        "detection": {"mask_ap": empty, "box_ap": empty, "protocol": None, "reason": "none"},
        "class_count": {"estimate": 11, "truth": None},
        "per_class": [],
        "clusters": [],
        "reliability_bins": [],
    }
    page = page_of(_with_document(finished_run, "evaluate", "metrics", metrics))
    assert "Not measured. clustering: no ground truth for unlabeled images" in page
    assert 'id="detection"' not in page
    assert "NaN" not in re.sub(r"base64,[^\"]*", "", page)


def test_a_config_chosen_by_an_oracle_is_called_one(finished_run, finished_page):
    assert 'class="oracle"' not in finished_page
    told = dataclasses.replace(finished_run, config={**finished_run.config, "oracle": True})
    assert 'class="oracle"' in page_of(told)
