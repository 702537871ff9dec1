"""The command line as a user meets it: mistakes are a line or two and exit status 2."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from class_folders import make_crop_folders
from coco_folder import folder_config, image_bytes, make_coco_folder, write_json
from scene_tables import FakeArtifact

from gcdis_ray.cli import COMMANDS, EXAMPLE, load_command, main, make_parser
from gcdis_ray.cli.telling import print_summaries
from gcdis_ray.stages import evaluate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_coco_folder(tmp_path / "data", num_images=30)
    return tmp_path / "data"


@pytest.fixture
def gcdis(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command on a config over ``folder``; gives exit status and what was printed."""

    def run(command: str, *more: str, **ingest: Any) -> tuple[int, str, str]:
        config = tmp_path / "run.yaml"
        data = {
            "name": "test",
            "storage": str(tmp_path / "store"),
            "compute": {"runtime": "local"},
            "stages": {"ingest": folder_config(folder, **ingest)},
        }
        config.write_text(yaml.safe_dump(data))
        capsys.readouterr()
        status = main([command, str(config), *more])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def _assert_short(error: str) -> None:
    assert "Traceback" not in error
    message = error[error.index("gcdis: ") :]
    assert len(message.strip().splitlines()) <= 3, message


def test_ingest_then_status_and_plan(gcdis, tmp_path: Path):
    _, out, _ = gcdis("plan", "--json")
    entries = {e["name"]: e for e in json.loads(out)["stages"]}
    assert entries["ingest"]["action"] == "run"
    assert entries["ingest"]["rows"] == 30
    assert not (tmp_path / "store").exists()
    assert gcdis("run", "--until", "ingest")[0] == 0
    _, out, _ = gcdis("status", "--json")
    stages = {s["name"]: s for s in json.loads(out)["stages"]}
    assert stages["ingest"]["state"] == "done"
    assert stages["ingest"]["rows"] == 30
    assert set(stages["ingest"]) >= {"name", "key", "state", "uri", "seconds", "rows"}
    assert json.loads(out)["metrics"] is None
    assert "= ingest" in gcdis("run", "--until", "ingest")[2]


def test_status_says_how_far_a_stage_is(gcdis, tmp_path: Path):
    _, out, _ = gcdis("status", "--json")
    key = json.loads(out)["stages"][0]["key"]
    attempt = tmp_path / "store" / "ingest" / key / "attempt-1"
    for folder in (attempt / "begun", attempt / "done" / "images"):
        folder.mkdir(parents=True)
    write_json(attempt / "begun" / "images.json", {"total": 4, "unit": "shards"})
    write_json(attempt / "done" / "images" / "00000.json", {})
    _, out, _ = gcdis("status")
    assert f"ingest       interrupted {key}  images: 1/4 shards, last written" in out


@pytest.mark.parametrize("command", [("status",), ("run", "--until", "ingest")])
@pytest.mark.parametrize("warning", [None, "the curve is flat"])
def test_a_doubtful_class_count_is_said(gcdis, command: tuple[str, ...], warning: str | None):
    count = {"count": FakeArtifact({"class_count": {"warning": warning}})}
    with (
        mock.patch("gcdis_ray.run.pipeline.Pipeline.artifacts", return_value=count),
        mock.patch("gcdis_ray.run.report.write_run_report", return_value="a page"),
    ):
        status, out, error = gcdis(*command)
    assert status == 0
    assert ("class count: the curve is flat" in error.splitlines()) == (warning is not None)
    assert "class count" not in out


def _remove_root(folder: Path) -> dict[str, Any]:
    return {"root": str(folder / "absent")}


def _empty_folder(folder: Path) -> dict[str, Any]:
    (folder / "empty").mkdir()
    return {"unlabeled": {"images": "empty"}}


def _truncated_json(folder: Path) -> dict[str, Any]:
    text = (folder / "all.json").read_text()
    (folder / "all.json").write_text(text[: int(len(text) * 0.9)])
    return {}


def _unknown_class(folder: Path) -> dict[str, Any]:
    return {"known_classes": ["cta"]}


def _all_images_spoiled(folder: Path) -> dict[str, Any]:
    for path in (folder / "images").iterdir():
        path.write_text("not an image")
    return {}


def _path_traversal(folder: Path) -> dict[str, Any]:
    data = json.loads((folder / "all.json").read_text())
    data["images"][0]["file_name"] = "../../etc/passwd"
    write_json(folder / "all.json", data)
    return {}


@pytest.mark.parametrize(
    "spoil",
    [
        _remove_root,
        _empty_folder,
        _truncated_json,
        _unknown_class,
        _all_images_spoiled,
        _path_traversal,
    ],
    ids=lambda f: f.__name__.strip("_"),
)
def test_bad_data_is_refused(gcdis, folder: Path, spoil: Callable[[Path], dict[str, Any]]):
    changes = spoil(folder)
    status, _, error = gcdis("run", "--until", "ingest", **changes)
    assert status == 2
    _assert_short(error)


def test_hidden_classes_are_for_tuning_only(gcdis, tmp_path: Path):
    hidden = ["--set", "stages.discover.hold_out.share=0.5"]
    for command, more in (("run", []), ("run", ["--until", "label"]), ("plan", [])):
        status, _, error = gcdis(command, *hidden, *more)
        assert status == 2
        assert "for tuning only" in error
        _assert_short(error)
    assert not (tmp_path / "store").exists()
    assert gcdis("run", *hidden, "--until", "ingest")[0] == 0


def _truncated_jpeg(folder: Path, data: dict[str, Any]) -> None:
    path = folder / "images/2.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def _text_named_jpg(folder: Path, data: dict[str, Any]) -> None:
    (folder / "images/2.jpg").write_text("hello")


def _missing_image(folder: Path, data: dict[str, Any]) -> None:
    (folder / "images/2.jpg").unlink()


def _wrong_size(folder: Path, data: dict[str, Any]) -> None:
    (folder / "images/2.jpg").write_bytes(image_bytes(2, height=60, width=40))


def _mask_outside(folder: Path, data: dict[str, Any]) -> None:
    data["annotations"][0]["segmentation"] = [[500, 500, 510, 500, 510, 510, 500, 510]]


def _zero_area(folder: Path, data: dict[str, Any]) -> None:
    data["annotations"][0]["segmentation"] = [[5, 5, 5, 5, 5, 5]]
    data["annotations"][0]["bbox"] = [5, 5, 0, 0]  # otherwise the object keeps its box


def _duplicate_ids(folder: Path, data: dict[str, Any]) -> None:
    data["annotations"][2]["id"] = data["annotations"][0]["id"]


def _annotation_without_image(folder: Path, data: dict[str, Any]) -> None:
    data["annotations"][0]["image_id"] = 999


@pytest.mark.parametrize(
    "spoil",
    [
        _truncated_jpeg,
        _text_named_jpg,
        _wrong_size,
        _mask_outside,
        _zero_area,
        _duplicate_ids,
        _annotation_without_image,
    ],
    ids=lambda f: f.__name__.strip("_"),
)
def test_a_few_bad_records_are_quarantined(gcdis, folder: Path, spoil: Any, tmp_path: Path):
    data = json.loads((folder / "all.json").read_text())
    spoil(folder, data)
    write_json(folder / "all.json", data)
    # nothing is too bad to go on, unless the share allowed is smaller
    status, _, error = gcdis("run", "--until", "ingest", max_quarantined_share=0.0)
    assert status == 2
    _assert_short(error)
    status, _, error = gcdis("run", "--until", "ingest", max_quarantined_share=0.2)
    assert status == 0, error
    from gcdis_ray.run.pipeline import Pipeline, load_config

    ingest = Pipeline(load_config(tmp_path / "run.yaml")).artifacts()["ingest"]
    rows = ingest.table("quarantine").read().to_pylist()
    assert len(rows) == 1, rows
    assert rows[0]["reason"]


def test_a_missing_image_is_named(gcdis, folder: Path):
    data = json.loads((folder / "all.json").read_text())
    _missing_image(folder, data)
    status, _, error = gcdis("run", "--until", "ingest", max_quarantined_share=0.2)
    assert status == 2
    _assert_short(error)
    assert "2.jpg" in error
    assert "partial: true" in error


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("stages.ingest.roott=x", "root"),
        ("stages.discover.gcdis.trainin.steps=1", "training"),
        ("compute.workers=many", "compute.workers"),
        ("stages.count.num_novel=-3", "num_novel"),
        ("seed=1.5", "seed"),
        ("recipe=unknown", "gcdis"),
        ("stages.discover.gcdis.training.micro_batches=3", "micro_batches"),
    ],
)
def test_bad_config_is_refused_before_anything_starts(gcdis, override: str, names: str):
    status, _, error = gcdis("run", "--set", override)
    assert status == 2
    assert names in error
    _assert_short(error)


def test_missing_config(capsys: pytest.CaptureFixture[str]):
    assert main(["run", "nowhere.yaml"]) == 2
    _assert_short(capsys.readouterr().err)


def test_storage_that_cannot_be_written(gcdis, tmp_path: Path):
    (tmp_path / "file").write_text("")
    status, _, error = gcdis("run", "--set", f"storage={tmp_path / 'file' / 'below'}")
    assert status == 2
    _assert_short(error)


@pytest.mark.timeout(60)
def test_unreachable_s3(gcdis):
    secrets = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with mock.patch.dict(os.environ, secrets):
        status, _, error = gcdis(
            "run", "--set", "storage=s3://b/x", "--set", "storage_endpoint=http://127.0.0.1:9"
        )
    assert status == 2
    assert "cannot be reached" in error
    _assert_short(error)


def test_evaluate_needs_both_files(capsys: pytest.CaptureFixture[str]):
    for more in ([], ["--results", "b.json"]):
        assert main(["evaluate", "--ground-truth", "a.json", *more]) == 2
        _assert_short(capsys.readouterr().err)


def test_doctor_says_what_is_wrong(gcdis, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    status, out, _ = gcdis("doctor")
    assert status == 0, out
    assert "✓ storage" in out
    (tmp_path / "file").write_text("")
    status, out, _ = gcdis("doctor", "--set", f"storage={tmp_path / 'file' / 'x'}")
    assert status == 2
    assert "✗ storage" in out


@pytest.mark.parametrize(
    ("folder", "truth", "results", "expected", "images"),
    [
        ("coco-subset", "instances", "results_segm", "expected_metrics", "splits.json:val"),
        ("coco-subset", "instances", "results_bbox", "expected_metrics", "splits.json:val"),
        ("voc2007-seg", "instances", "results_segm", "expected_metrics", None),
        ("voc2007-seg", "instances", "results_bbox", "expected_metrics", None),
    ],
)
def test_evaluate_equals_the_reference(
    shared_data: Path,
    capsys: pytest.CaptureFixture[str],
    folder: str,
    truth: str,
    results: str,
    expected: str,
    images: str | None,
):
    root = shared_data / folder
    where = root / "reference_eval"
    command = ["evaluate", "--ground-truth", str(root / f"{truth}.json"), "--json"]
    command += ["--results", str(where / f"{results}.json")]
    command += ["--images", str(root / images)] if images else []
    assert main(command) == 0
    scores = json.loads(capsys.readouterr().out)
    kind, name = ("mask", "segm") if "segm" in results else ("box", "bbox")
    want = json.loads((where / f"{expected}.json").read_text())[name]
    for metric in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert scores[kind][metric] == pytest.approx(want[metric], abs=1e-6)
    assert scores[kind]["AR"] == pytest.approx(want["AR100"], abs=1e-6)
    assert scores["per_class"]


@pytest.mark.parametrize(
    "where", ["absent.json", "{file}:nothing", "{file}:l.x", "{file}", "{empty}", ":val", "/"]
)
def test_bad_image_lists(folder: Path, where: str, capsys: pytest.CaptureFixture[str]):
    (folder / "empty.json").write_text("[]")
    where = where.format(file=folder / "lists.json", empty=folder / "empty.json")
    command = ["evaluate", "--ground-truth", "a", "--results", "b", "--images", where]
    assert main(command) == 2
    _assert_short(capsys.readouterr().err)


def test_a_run_tells_by_which_rules_and_names_its_detections_are_scored(
    capsys: pytest.CaptureFixture[str],
):
    ap = {"all": 0.1, "known": 0.2, "novel": None}
    mapping = {"source": "split_val", "scope": "all", "drop": "before_topk", "leak_free": True}
    mapping["note"] = "unlabeled images cannot be mapped by: no ground truth"
    metrics = {
        "discovery": {},
        "detection": {
            "mask_ap": ap,
            "ap_by_frequency": {"mask": {"r": None, "c": 0.25, "f": 0.5}, "box": None},
            "rules": "lvis",
            "mapping": mapping,
        },
        "class_count": {"estimate": 3, "discovered": 3, "truth": 3},
    }
    artifact = mock.Mock(**{"json.return_value": metrics})
    nodes = {"marks": mock.Mock(stage=evaluate)}
    pipeline = mock.Mock(config=mock.Mock(oracle=False), nodes=nodes, acts=())
    pipeline.artifacts.return_value = {"marks": artifact}
    print_summaries(pipeline)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        "mask AP all 0.100 known 0.200 novel n/a",
        "mask AP by frequency r n/a c 0.250 f 0.500",
        "AP scored by rules lvis; mapping: source split_val, scope all, drop before_topk "
        "(leak-free)",
        mapping["note"],
    ]


@pytest.mark.parametrize("recipe", ["gcdis", "discovery"])
def test_what_init_writes_can_be_planned(tmp_path: Path, folder: Path, recipe: str, capsys):
    if recipe == "discovery":
        folder = tmp_path / "crops"
        make_crop_folders(folder)
    out = tmp_path / "mine.yaml"
    assert main(["init", str(folder), "--out", str(out)]) == 0
    assert f"next: gcdis plan {out}" in capsys.readouterr().out
    assert yaml.safe_load(out.read_text())["recipe"] == recipe
    assert main(["plan", str(out), "--set", f"storage={tmp_path / 'store'}", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["stages"]
    assert entries[-1]["name"] == "evaluate"


def test_init_never_writes_over_a_file(tmp_path: Path, folder: Path, capsys):
    out = tmp_path / "mine.yaml"
    assert main(["init", str(folder), "--out", str(out)]) == 0
    text = out.read_text()
    assert yaml.safe_load(text)["stages"]["ingest"]["root"] == str(folder)
    out.write_text("mine")
    assert main(["init", str(folder), "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    _assert_short(capsys.readouterr().err)
    assert main(["init", str(folder), "--out", str(out), "--force"]) == 0
    assert out.read_text() == text
    assert main(["init", str(tmp_path / "nowhere"), "--out", str(out)]) == 2
    _assert_short(capsys.readouterr().err)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]):
    command = load_command(name)
    with pytest.raises(SystemExit, match="0"):
        main([*name.split(), "--help"])
    assert capsys.readouterr().out.split("\n\n")[-1].split("\n", 1)[1] == "".join(
        f"  {line}\n" for line in command.EXAMPLE.splitlines()
    )
    for line in command.EXAMPLE.splitlines():
        gcdis, *words = shlex.split(line)
        assert gcdis == "gcdis"
        assert words[: len(name.split())] == name.split()
        assert make_parser(words[0]).parse_args(words).command == command.run


def test_help_of_all_names_every_command(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    shown = {line.split()[0] for line in out.splitlines() if line.startswith("    ")}
    assert shown >= {name.split()[0] for name in COMMANDS}
    assert out.endswith("".join(f"  {line}\n" for line in EXAMPLE.splitlines()))
    for line in EXAMPLE.splitlines():
        make_parser().parse_args(shlex.split(line)[1:])


def test_a_command_imports_no_other():
    script = (
        "import sys; from gcdis_ray.cli import make_parser; make_parser('doctor'); "
        "print(*(m.removeprefix('gcdis_ray.cli.') for m in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) & {name.replace(" ", "_") for name in COMMANDS} == {"doctor"}


def test_a_word_that_is_no_command_is_told_all_of_them(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["segement"])
    error = capsys.readouterr().err
    assert "invalid choice: 'segement'" in error
    assert "sweep" in error


def test_json_is_all_of_standard_output(gcdis, tmp_path: Path):
    _, out, error = gcdis("run", "--until", "ingest", "--json")
    told = json.loads(out)
    assert set(told) == {"name", "stages", "metrics", "report"}
    assert told["stages"][0]["state"] == "done"
    assert Path(told["report"]).is_file()
    assert f"report: {told['report']}" in error
    assert json.loads(gcdis("status", "--json")[1])["stages"][0] == told["stages"][0]
    page = tmp_path / "page.html"
    assert json.loads(gcdis("report", "--json", "--output", str(page))[1]) == {"report": str(page)}
    assert page.is_file()


def test_doctor_tells_scripts_what_it_tells_people(gcdis, tmp_path: Path):
    (tmp_path / "file").write_text("")
    status, out, _ = gcdis("doctor", "--json", "--set", f"storage={tmp_path / 'file' / 'x'}")
    assert status == 2
    checks = {check["name"]: check for check in json.loads(out)["checks"]}
    assert checks["storage"]["state"] == "fail"
    assert checks["python"]["state"] == "ok"
    assert set(checks["python"]) == {"name", "state", "detail"}


def test_gc_tells_scripts_what_goes(gcdis, tmp_path: Path):
    key = json.loads(gcdis("status", "--json")[1])["stages"][0]["key"]
    base = tmp_path / "store" / "ingest" / key
    (base / "attempt-1").mkdir(parents=True)
    (base / "attempt-1" / "a").write_bytes(bytes(7))
    gone = {"folder": f"ingest/{key}", "bytes": 7}
    for dry in (True, False):
        more = ["--older-than-h", "0", "--json", *(["--dry-run"] if dry else [])]
        assert json.loads(gcdis("gc", *more)[1]) == {"removed": not dry, "folders": [gone]}
        assert base.exists() == dry


def test_track_tells_scripts_what_it_wrote(gcdis, tmp_path: Path):
    with mock.patch("gcdis_ray.report.tracking.write_curves", return_value=3):
        _, out, _ = gcdis("track", "--output", str(tmp_path / "curves"), "--json")
    assert json.loads(out) == {"folder": str(tmp_path / "curves"), "values": 3}


def test_init_and_digits_tell_scripts_what_they_wrote(tmp_path: Path, folder: Path, capsys):
    out = tmp_path / "mine.yaml"
    assert main(["init", str(folder), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["config"]) == ("data", str(out))
    assert all(isinstance(line, str) for line in told["found"])
    with mock.patch("gcdis_ray.data.samples.digits.write_scenes"):
        assert main(["digits", str(tmp_path / "scenes"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "scenes")}


def test_what_may_take_long_says_how_far_it_is(
    gcdis, tmp_path: Path, folder: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gcdis_ray.run.progress.LOG_EVERY_S", -1.0)
    key = json.loads(gcdis("status", "--json")[1])["stages"][0]["key"]
    (tmp_path / "store" / "ingest" / key / "attempt-1").mkdir(parents=True)
    assert "  gc           0/1 artifacts" in gcdis("gc", "--dry-run")[2]
    assert re.search(r"  report       1/\d+ stages +\d+ %", gcdis("report")[2])
    assert main(["init", str(folder), "--out", str(tmp_path / "mine.yaml")]) == 0
    assert " annotations" in capsys.readouterr().err
    truth, results = folder / "all.json", tmp_path / "results.json"
    data = json.loads(truth.read_text())["annotations"][0]
    row = {"image_id": data["image_id"], "category_id": data["category_id"], "score": 0.5}
    found = [{**row, "bbox": data["bbox"]}]
    for content, far in ((found, "0 MB"), ({"annotations": found}, "1/1 detections")):
        write_json(results, content)
        files = ["--ground-truth", str(truth), "--results", str(results)]
        assert main(["evaluate", *files]) == 0
        assert f"  evaluate     {far}" in capsys.readouterr().err
