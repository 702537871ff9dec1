"""``gcdis name``: the sheet, acts by numbers and names, lists, and what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from page_elements import Elements
from sorted_run import crops_of_class

from gcdis_ray.cli import main
from gcdis_ray.naming.desk import Desk
from gcdis_ray.run.opened import open_run

Gcdis = Callable[..., tuple[int, str, str]]


@pytest.fixture
def name(shapes: str, capsys: pytest.CaptureFixture[str]) -> Gcdis:
    """Runs ``gcdis name`` on a run of its own; gives exit status and what was printed."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["name", shapes, *words])
        return (status, *capsys.readouterr())

    return run


def listed(name: Gcdis) -> dict[int, str]:
    document = json.loads(name("--json")[1])
    return {cluster["number"]: cluster["name"] for cluster in document["clusters"]}


def test_the_sheet_shows_all_clusters_in_one_file(name: Gcdis, shapes: str):
    status, out, _ = name()
    assert status == 0
    assert out.splitlines()[0] == f"contact sheet: {shapes}/reports/shapes-names.html"
    assert f"gcdis name {shapes} --serve" in out
    page = Elements(Path(shapes, "reports", "shapes-names.html").read_text())
    assert not page.misnested
    assert len(page.of("article")) == 4
    assert not page.of("script")
    pictures = page.of("img")
    assert len(pictures) >= 4 * 8
    assert all((picture["src"] or "").startswith("data:image/jpeg") for picture in pictures)
    text = " ".join(" ".join(page.text).split())
    for words in ("4 clusters to name", "novel 3", "Looks like two", "--split 4", "cat", "--undo"):
        assert words in text


def test_the_sheet_goes_where_it_is_told(name: Gcdis, tmp_path: Path):
    status, _, _ = name("--output", str(tmp_path / "sheet.html"))
    assert status == 0
    assert (tmp_path / "sheet.html").is_file()
    status, _, error = name("--output", str(tmp_path / "no" / "sheet.html"))
    assert status == 2
    assert "No such file or directory" in error


def test_acts_are_said_by_number_and_name(name: Gcdis, shapes: str):
    status, out, _ = name("--name", "2=circle", "--name", "novel 2= square ")
    assert (status, out) == (0, "renamed: nothing to train\n")
    assert listed(name) == {
        0: "cat",
        1: "dog",
        2: "circle",
        3: "square",
        4: "novel 3",
        5: "novel 4",
    }
    status, out, _ = name("--split", "4", "--merge", "circle,5", "--reject", "#3")
    assert status == 0
    assert out.startswith("merged and split and rejected: ")
    assert listed(name) == {0: "cat", 1: "dog", 2: "circle", 3: "novel 3", 5: "novel 6"}
    lines = name("--undo", "--list")[1].splitlines()
    assert lines[0].startswith("taken back: ")
    assert [line.split()[:2] for line in lines[3:5]] == [["2", "20"], ["3", "12"]]
    assert lines[4].endswith("named  square")
    crops = ",".join(map(str, crops_of_class(3)[:2]))
    assert name("--split-crops", crops)[0] == 0
    assert [len(c.crops_M) for c in Desk(open_run(shapes)).look().clusters][3] == 10


def test_a_log_is_replayed_elsewhere(name: Gcdis, shapes: str, shapes_made: Path, tmp_path: Path):
    name("--name", "2=circle")
    name("--merge", "2,5", "--undo")
    log = tmp_path / "names.json"
    log.write_bytes(b"".join(p.read_bytes() for p in sorted(Path(shapes, "names").rglob("*.json"))))
    other = str(shutil.copytree(shapes_made, tmp_path / "other"))
    assert main(["name", other, "--apply", str(log)]) == 0
    assert Desk(open_run(other)).look().clusters[2].name == "circle"


def test_a_log_is_applied_whole_or_not_at_all(name: Gcdis, tmp_path: Path):
    log = tmp_path / "names.json"
    log.write_text(
        '{"act": "name", "crop": 16, "name": "circle"}\n{"act": "reject", "crop": 9999}\n'
    )
    status, _, error = name("--apply", str(log))
    assert status == 2
    assert "no crop 9999" in error
    assert f"{log}, line 2" in error
    log.write_text('{"act": "name"\n')
    assert "line 1" in name("--apply", str(log))[2]
    assert "No such file" in name("--apply", str(tmp_path / "none"))[2]
    assert listed(name)[2] == "novel 1"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "2"], "--name 2: says no name"),
        (["--name", "2="], "--name 2=: a name has 1 to 100 printable characters"),
        (["--name", f"2={'x' * 101}"], "1 to 100 printable"),
        (["--name", "2=a\nb"], "1 to 100 printable"),
        (["--name", "2=dog"], "is another class's"),
        (["--name", "2=a", "--name", "3=A"], "is another class's"),
        (["--name", "6=nobody"], "no cluster is called '6'"),
        (["--name", "zebra=horse"], "no cluster is called 'zebra'"),
        (["--name", "0=kitten"], "a known class keeps its name"),
        (["--merge", "0,1"], "known classes"),
        (["--merge", "2"], "two clusters or more"),
        (["--merge", "2,novel 1"], "two clusters or more"),
        (["--split", "3"], "--split 3: novel 2 does not clearly look like two"),
        (["--split-crops", "7,x"], "'x' is no number of a crop"),
        (["--split-crops", "16,9999"], "no crop 9999"),
        (["--reject", "dog"], "is a known class"),
        (["--undo"], "no act is left"),
        (["--serve", "--list"], "--serve: acts, lists and files are not for the page"),
        (["--output", "x", "--json"], "--output: is of the contact sheet"),
        (["--port", "80"], "--port: is of the page"),
        (["--vocabulary", "x"], "--vocabulary: names are suggested"),
        (["--text-encoder", "x"], "--text-encoder: names are suggested"),
        (["--text-encoder", "x", "--vocabulary", "x", "--list"], "on a page or a contact sheet"),
    ],
)
def test_mistakes_are_named(name: Gcdis, words: list[str], said: str):
    status, _, error = name(*words)
    assert status == 2
    assert said in error
    assert len(error.strip().splitlines()) <= 2
    assert listed(name)[2] == "novel 1"


def test_a_number_that_is_a_name_too_is_asked_about(name: Gcdis):
    assert name("--name", "3=5")[0] == 0
    status, _, error = name("--reject", "5")
    assert status == 2
    assert "is the number of one class and the name of another" in error
    assert "#5 or #3" in error
    assert name("--reject", "#5")[0] == 0
    assert listed(name)[3] == "5"


def test_a_run_is_opened_by_its_config_with_overrides_only(name: Gcdis):
    status, _, error = name("--set", "seed=1")
    assert status == 2
    assert "is as it is" in error


@pytest.mark.thorough
def test_the_page_ends_with_ctrl_c(shapes: str):
    program = [sys.executable, "-m", "gcdis_ray.cli", "name", shapes, "--serve"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, text=True, env=os.environ,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells may ignore it
    ) as served:  # fmt: skip
        assert served.stdout is not None
        address = served.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{address}clusters") as answer:
            assert json.load(answer)["run"] == "shapes"
        served.send_signal(signal.SIGINT)
        rest = served.stdout.read()
    assert served.returncode == 0
    assert "ended; every act is kept" in rest
