"""The parts of the report: what is picked, how it is drawn, how numbers are read."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scene_tables import MemoryOpener
from synthetic_run import artifact, make_run

from gcdis_ray.masks import coco_rle
from gcdis_ray.report import figures, findings, gallery, marks, pictures
from gcdis_ray.report.assigned import Crops, read_crops_assigned
from gcdis_ray.report.cards import ON_PAGE, Told, choose_cards, class_cards
from gcdis_ray.report.judging import Verdict
from gcdis_ray.report.palette import class_color, ink_on, oklch_to_hex, rgb
from gcdis_ray.report.projection import principal_components
from gcdis_ray.report.view import ClassView, RunView, printable


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------- colours and text


def test_oklch_endpoints_and_a_published_colour():
    assert oklch_to_hex(1, 0, 0) == "#ffffff"
    assert oklch_to_hex(0, 0, 0) == "#000000"
    assert oklch_to_hex(0.62796, 0.25768, 29.234) == "#ff0000"  # sRGB red


def test_class_colours_differ_and_known_ones_are_muted():
    def spread(color: str) -> int:
        return max(rgb(color)) - min(rgb(color))

    colors = [class_color(i, known=False) for i in range(100)]
    assert len(set(colors)) == 100
    assert all(spread(class_color(i, True)) < spread(class_color(i, False)) for i in range(40))
    assert (ink_on("#ffffff"), ink_on("#000000")) == ("#000000", "#ffffff")


@given(st.text())
def test_printable_text_is_encodable_and_without_control_characters(text):
    safe = printable(text + "\x00\x1b\ud83d")
    safe.encode("utf-8")
    assert not set(safe) & {"\x00", "\x1b"}


# ---------------------------------------------------------------- galleries


@given(
    st.lists(st.floats(0, 1), max_size=40),
    st.integers(1, 12),
    st.integers(0, 12),
)
def test_picked_crops_are_the_extremes_without_overlap(trust, num_best, num_doubtful):
    index = np.arange(len(trust)) * 3
    best, doubtful = gallery.pick_crops(index, np.array(trust), num_best, num_doubtful)
    level = dict(zip(index.tolist(), trust, strict=True))
    assert not set(best.tolist()) & set(doubtful.tolist())
    assert len(doubtful) == min(num_doubtful, len(trust) // 3)
    assert len(best) == min(num_best, len(trust) - len(doubtful))
    ranked = sorted(trust)
    assert [level[i] for i in best.tolist()] == ranked[::-1][: len(best)]
    assert [level[i] for i in doubtful.tolist()] == ranked[: len(doubtful)]


def test_a_crop_shows_its_outline_and_dims_the_rest():
    pixels = np.full((40, 60, 3), 200, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    jpeg, width, height = gallery.draw_crop(_png(pixels), _png(mask), "#ff0000")
    drawn = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)
    assert (height, width) == drawn.shape[:2] == (116, 174)
    inside, outside = drawn[58, 87], drawn[8, 8]
    assert inside.min() > 190
    assert outside.max() < 140
    border = drawn[58, 57:61]
    assert (border[:, 0] - border[:, 1]).max() > 60  # red


def test_the_worst_crop_stays_within_its_budget():
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)
    jpeg, width, _ = gallery.draw_crop(_png(noise), _png(noise[..., 0]), "#00ff00")
    assert width <= 210
    assert len(jpeg) < 5_000


def test_only_shards_with_wanted_crops_are_opened(finished_run):
    table = finished_run.table("crops")
    assert isinstance(table.opener, MemoryOpener)
    first = table.shards[0].rows
    table.opener.reads.clear()
    rows = gallery.iter_crops(table, [first + 1, first, 10**9])
    assert [row["crop_index"] for row in rows] == [first, first + 1]
    assert table.opener.reads == ["crops/1.parquet"]


def _many_classes(num_classes: int, per_class: int) -> tuple[RunView, Crops]:
    run = make_run(num_images=8)
    total = num_classes * per_class
    crops = Crops(
        np.arange(total),
        np.arange(total) % num_classes,
        np.linspace(0, 1, total),
        np.full(total, np.nan),
        np.full(total, np.nan),
    )
    return run, crops


@pytest.mark.parametrize("num_classes", [3, 80, 2000])
def test_the_number_of_thumbnails_is_limited(monkeypatch, num_classes):
    def draw(
        table: object, looks: dict[int, gallery.Look], frame: object
    ) -> dict[int, gallery.Thumb]:
        return {i: gallery.Thumb("", look.alt, look.hint, 1, 1) for i, look in looks.items()}

    monkeypatch.setattr("gcdis_ray.report.cards.draw_thumbs", draw)
    run, crops = _many_classes(num_classes, 30)
    classes = [ClassView(i, f"c{i}", known=i < 2) for i in range(num_classes)]
    told = Told({c.class_index: c for c in classes}, {}, {}, {})
    cards = class_cards(run, classes, crops, told)
    shown = [len(c.best) + len(c.doubtful) for c in cards]
    assert sum(shown) <= ON_PAGE.most
    assert len(cards) == num_classes
    assert sum(shown) >= min(0.6 * ON_PAGE.most, 24)


def test_of_many_classes_the_largest_and_the_least_trusted_have_a_card_on_the_page():
    classes = [ClassView(i, f"c{i}", known=i < 70) for i in range(200)]
    sizes = {i: 1_000 - i for i in range(199)}  # the last class is empty
    doubtful = {150: Verdict.MIXED, 170: Verdict.TWO, 180: Verdict.FEW}
    told = Told({}, {}, {}, dict.fromkeys(range(70, 199), Verdict.SAFE) | doubtful)
    page, beside = choose_cards(classes, sizes, told)
    assert [c.class_index for c in page][:20] == list(range(70, 90))
    assert {150, 170, 180} <= {c.class_index for c in page}
    assert len(page) == 40
    assert {c.class_index for c in (*page, *beside)} == set(range(199))
    few, none = choose_cards(classes[60:90], sizes, told)
    assert (len(few), none) == (30, [])


def test_pseudo_labels_replace_clusters_and_bring_reliability():
    rows = [
        {
            "crop_index": i,
            "class_index": 0 if i == 0 else -1,
            "cluster_id": i,
            "topk_ids": [i],
            "topk_probabilities": [0.5 + 0.1 * i],
            "embedding": [1.0, 0.0],
        }
        for i in range(4)
    ]
    label = {
        "crop_index": 2,
        "image_id": 1,
        "source_id": 1,
        "cluster_id": 9,
        "probability": 0.7,
        "stability": 0.8,
        "reliability": 0.25,
    }
    artifacts = {
        "discover": artifact("discover", {"assignments": [rows[:2], [], rows[2:]]}, {}),
        "label": artifact("label", {"pseudo_labels": [[], [], [label]]}, {}),
    }
    crops = read_crops_assigned(RunView("x", "gcdis", 0, {}, "", [], artifacts))
    assert crops.crop_index.tolist() == [1, 2, 3]  # crop 0 is labeled
    assert crops.class_index.tolist() == [1, 9, 3]
    assert crops.reliability[1] == 0.25
    assert np.isnan(crops.reliability[[0, 2]]).all()
    assert crops.trust()[1] > crops.trust()[2] > crops.trust()[0]


# ---------------------------------------------------------------- pictures


def test_overlapping_predictions_are_drawn_once():
    first, nearly, apart = (np.zeros((20, 20), bool) for _ in range(3))
    first[2:10, 2:10] = nearly[2:10, 2:9] = apart[12:18, 12:18] = True
    rles = [coco_rle.encode(m) for m in (first, nearly, apart)]
    assert pictures.suppress_overlaps(rles, np.array([0.5, 0.9, 0.7]), 20, 20) == [1, 2]
    assert pictures.suppress_overlaps([], np.zeros(0), 20, 20) == []


def test_the_display_threshold_shows_about_as_many_as_there_are():
    scores = np.linspace(0.01, 0.49, 49)
    assert pictures.display_threshold(scores, 10) == pytest.approx(0.40)
    assert pictures.display_threshold(scores, 10**6) == pytest.approx(0.02)
    assert pictures.display_threshold(np.full(5, 0.9), 2) == 0.5
    assert pictures.display_threshold(np.zeros(0), 3) == pytest.approx(0.02)


def test_scenes_are_spread_over_the_first_split_that_exists(finished_run):
    images = finished_run.table("images")
    chosen = pictures.choose_images(images, ("nowhere", "unlabeled", "labeled"), 3)
    splits = [images.shard(s)["split"][r].as_py() for s, r in chosen]
    assert splits == ["unlabeled"] * 3
    ids = [images.shard(s)["image_id"][r].as_py() for s, r in chosen]
    assert ids == sorted(set(ids))
    assert len({shard for shard, _ in chosen}) == 2


def test_a_scene_tints_the_mask_and_writes_the_label():
    mask = np.zeros((64, 64), bool)
    mask[20:60, 20:60] = True
    item = pictures.Drawn(coco_rle.encode(mask), (20.0, 20.0, 60.0, 60.0), "#00ff00", "new-1 0.50")
    grey = np.full((64, 64, 3), 100, np.uint8)
    uri = pictures.draw_image(grey, [item])
    import base64

    drawn = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    pixels = np.asarray(drawn).astype(int)
    assert max(drawn.size) == pictures.SIDE_PX
    inside, outside = pixels[400, 400], pixels[50, 50]
    assert inside[1] - inside[0] > 60
    assert abs(outside - 100).max() < 8
    chip = pixels[182:198, 204:280]
    assert (chip[..., 1] > 200).mean() > 0.5


def test_a_box_without_mask_is_drawn_too():
    item = pictures.Drawn(None, (10.0, 10.0, 50.0, 50.0), "#00ff00", "")
    assert pictures.draw_image(np.zeros((64, 64, 3), np.uint8), [item])
    assert pictures.describe([item], "objects") == "1 objects"
    assert pictures.describe([], "objects") == "no objects"


# ---------------------------------------------------------------- series, numbers, figures


@given(st.integers(3, 40), st.integers(2, 6), st.integers(0, 2**31))
def test_principal_components_match_the_singular_vectors(rows, columns, seed):
    data = np.random.default_rng(seed).normal(size=(rows, columns)) * np.arange(1, columns + 1)
    points = principal_components(data)
    centred = data - data.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(points), np.abs(u[:, :2] * s[:2]), atol=1e-6 * s[0] + 1e-9)


def test_missing_numbers_are_dashes():
    assert (
        findings.fraction(None) == findings.fraction(-1) == findings.fraction(float("nan")) == "–"
    )
    assert findings.fraction(0.236) == "0.24"
    assert findings.average_precision(0.0432) == "0.043"
    assert findings.average_precision(0.3) == "0.30"
    assert findings.dig({"a": {"b": 1}}, "a", "c", "d") is None


def test_protocols_are_found_wherever_they_are_named():
    metrics = {
        "a": {"protocol": {"x": "one"}},
        "b": [1],
        "c": {"d": {"protocol": "two"}},
        "e": {"protocol": None},
    }
    assert dict(findings.protocols(metrics)) == {"a x": "one", "c d": "two"}


def test_rules_and_names_of_detections_are_told_where_they_are_known():
    mapping = {"protocol": "as in RNCDL"}
    by_frequency = {"mask": {"r": 0.1, "c": None, "f": 0.3}, "box": None}
    lvis = {"rules": "lvis", "mapping": mapping, "ap_by_frequency": by_frequency}
    assert findings.detection_facts({"detection": lvis}) == [
        ("rules", "LVIS, federated"),
        ("outputs and classes", "as in RNCDL"),
    ]
    rows = findings.frequency_rows({"detection": lvis})
    assert rows == [{"title": "mask AP", "r": 0.1, "c": None, "f": 0.3}]
    nothing = {"rules": None, "mapping": {}, "ap_by_frequency": {"mask": None, "box": None}}
    assert findings.detection_facts({"detection": nothing}) == []
    assert findings.frequency_rows({"detection": nothing}) == findings.frequency_rows({}) == []


def test_figures_cope_with_empty_and_long_input():
    empty = np.zeros(0)
    nothing = {"num_classes": 7, "curve": []}
    assert "estimate 7" in figures.class_count_figure(nothing, None)
    wide = {"num_classes": 7, "curve": [{"num_classes": k, "score": 0.5} for k in (1, 7, 300)]}
    assert ">100<" in figures.class_count_figure(wide, 9)
    many = {f"n{i}": (np.arange(5_000.0), np.full(5_000, np.nan)) for i in range(30)}
    assert len(figures.training_figure("discover", many)) < 200_000
    assert "<svg" in figures.trust_figure({"probability": (empty, empty)})
    classes = [ClassView(i, f"class {i}", known=False) for i in range(300)]
    assert "<svg" in figures.size_figure(classes, {})


def test_smoothing_keeps_a_constant_and_thinning_keeps_the_mean():
    assert np.allclose(marks.smooth(np.full(50, 3.0)), 3.0)
    steps, values = marks.thin(np.arange(3_000), np.arange(3_000.0))
    assert len(values) == 300
    assert values.mean() == pytest.approx(1499.5)
    assert steps[-1] == 2999


def test_svg_text_stays_text_and_takes_the_colour_of_the_page():
    svg = figures.size_figure([ClassView(0, "a <b> $x$", known=False)], {0: 3})
    assert "a &lt;b&gt; $x$" in svg
    assert "currentColor" in svg
    assert "style=" not in svg
    assert "xmlns" not in svg
