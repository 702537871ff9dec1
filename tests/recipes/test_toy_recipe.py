"""A recipe of another package, found by entry point: every command serves it as it is."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gcdis_ray import cli
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.graph import load_recipe, recipe_names
from gcdis_ray.run.pipeline import Pipeline, load_config

PACKAGE = Path(__file__).with_name("toy")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toy on the path, as an installed package is."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    importlib.invalidate_caches()
    yield
    importlib.invalidate_caches()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "coins.yaml"
    settings = {
        "recipe": "toy",
        "storage": str(tmp_path / "storage"),
        "compute": {"runtime": "local"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def gcdis(config: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Status, standard output and standard error of a command on the config."""

    def call(command: str, *more: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = cli.main([command, str(config), *more])
        return status, *capfd.readouterr()

    return call


def test_it_is_among_the_recipes():
    assert {"toy", "gcdis", "kmeans"} <= set(recipe_names())
    assert list(load_recipe("toy")) == ["coins", "envelope", "opinion", "marks"]


def test_plan_run_and_status(gcdis):
    status, plan, _ = gcdis("plan")
    assert status == 0
    assert "0 cached, 4 to run" in plan
    assert re.search(r"> opinion .*~20 rows .* <- coins  \[never run\]", plan)
    status, told, _ = gcdis("run")
    assert status == 0
    assert "guessed right 1.00" in told
    status, told, errors = gcdis("status")
    assert [line.split()[:2] for line in told.splitlines()[:4]] == [
        [name, "done"] for name in ("coins", "envelope", "opinion", "marks")
    ]
    assert "of 20 coins" in told
    assert errors == ""
    assert "4 cached, 0 to run" in gcdis("plan")[1]
    _, told, _ = gcdis("status", "--json")
    found = json.loads(told)
    assert set(found["metrics"]) == {"coins", "right"}
    assert "/toy_guess/" in found["stages"][2]["uri"]


def test_warnings_and_evaluate(gcdis):
    status, told, errors = gcdis("evaluate", "--set", "stages.coins.coins=5", "--json")
    assert status == 0
    assert json.loads(told)["coins"] == 5
    assert "few coins" in errors


def test_one_part_of_the_config_configures_two_nodes_and_what_is_unknown_is_refused(config: Path):
    wide = Pipeline(load_config(config, ["stages.coins.coins=25"]))
    first = Pipeline(load_config(config))
    changed = {name for name in wide.nodes if wide.nodes[name].key != first.nodes[name].key}
    assert changed == {"coins", "envelope", "opinion", "marks"}
    with pytest.raises(ConfigError, match=r"unknown key 'stages\.envelope'"):
        load_config(config, ["stages.envelope.coins=25"])
    with pytest.raises(ConfigError, match=r"unknown key 'stages.discover', valid: coins"):
        load_config(config, ["stages.discover.top_k=3"])


def test_a_stage_checks_what_it_needs_before_anything_runs(gcdis, config: Path):
    status, _, errors = gcdis("run", "--set", "stages.opinion.notes=/nowhere/notes")
    assert status == 2
    assert "stages.opinion.notes" in errors
    assert not (config.parent / "storage").exists()


def test_report_holds_its_section(gcdis, tmp_path: Path):
    gcdis("run")
    page = tmp_path / "page.html"
    assert gcdis("report", "--output", str(page))[0] == 0
    text = page.read_text()
    assert '<a href="#coins">Coins</a>' in text
    assert re.search(r"guessed right: 1\.00", text)
    assert "toy_guess" in text or "opinion" in text
    gcdis("report", "--set", "stages.coins.coins=35", "--output", str(page))  # nothing made yet
    assert "Coins" not in page.read_text().split("<body")[1].split("Reproduce")[0]


def test_gc_frees_what_its_interrupted_attempts_left(gcdis, config: Path):
    gcdis("run")
    left = config.parent / "storage" / "toy_guess" / ("0" * 24) / "attempt-1"
    left.mkdir(parents=True)
    (left / "part").write_text("x" * 1000)
    status, told, _ = gcdis("gc", "--older-than-h", "0")
    assert status == 0
    assert f"removed toy_guess/{'0' * 24}" in told
    assert not left.exists()
    assert "4 cached" in gcdis("plan")[1]


@pytest.fixture
def sweep(config: Path) -> Callable[..., Path]:
    def write(objective: str, **more: object) -> Path:
        path = config.parent / f"sweep_{objective}.yaml"
        spec = {
            "name": f"by-{objective}",
            "base": str(config),
            "objective": objective,
            "space": {"stages.opinion.threshold": {"kind": "grid", "values": [0.55, 0.65, 0.9]}},
            "searcher": "grid",
            **more,
        }
        path.write_text(yaml.safe_dump(spec))
        return path

    return write


def test_sweep_by_its_own_objective(sweep, capfd: pytest.CaptureFixture[str]):
    assert cli.main(["sweep", str(sweep("clarity"))]) == 0
    assert "clarity" in capfd.readouterr().out


def test_an_objective_that_opens_sealed_answers_is_an_oracle(
    sweep, capfd: pytest.CaptureFixture[str]
):
    assert cli.main(["sweep", str(sweep("right")), "--plan"]) == 2
    assert "oracle: true" in capfd.readouterr().err
    assert cli.main(["sweep", str(sweep("right", oracle=True))]) == 0
    assert cli.main(["sweep", str(sweep("beauty"))]) == 2
    error = capfd.readouterr().err
    assert "clarity" in error
    assert "right" in error


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ("toy_leak", r"node opinion: may not take 'answers' of envelope: it is sealed"),
        ("toy_late_leak", r"node second_opinion: may not take 'hint' of hint: it is sealed"),
        ("toy_broken", r"gcdis_toy.nowhere:RECIPE cannot be loaded.*gcdis-toy"),
        ("toy_strange", "names no Recipe"),
    ],
)
def test_a_leak_and_what_is_no_recipe_are_refused(config: Path, gcdis, recipe: str, told: str):
    status, _, errors = gcdis("run", "--set", f"recipe={recipe}")
    assert status == 2
    assert "Traceback" not in errors
    assert re.search(told, errors, re.S), errors
    assert not (config.parent / "storage").exists()
