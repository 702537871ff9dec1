"""Hours and cost of a plan: files of rates, and what they make of workloads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_run import ROOT, gcdis, open_pipeline

from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.run import plan
from gcdis_ray.run.plan import describe
from gcdis_ray.run.rates import Hours, StageRates, bill, hours, read_rates
from gcdis_ray.stages import crop
from gcdis_ray.store.artifacts import Size, Workload

SHIPPED = ROOT / "benchmarks" / "rates_a100.yaml"
ON_GPUS = ComputeConfig(workers=4, data_workers=16, gpus_per_worker=1)
ON_CORES = ComputeConfig(workers=2, data_workers=8)
RATES = StageRates.model_validate(
    {"samples": {"per_s": 100, "by": "gpu"}, "rows": {"per_s": 10, "by": "gpu"}}
)


def file(folder: Path, name: str = "rates.yaml", **changes) -> Path:
    told = {"what": "a test", "estimated": False, "stages": {}} | changes
    (folder / name).write_text(json.dumps(told))
    return folder / name


def test_amounts_over_rates_and_places():
    work = Workload(samples=1_440_000, rows=360_000)
    assert hours(work, RATES, ON_GPUS) == Hours(1.0, 2.5)
    assert hours(work, RATES, ON_GPUS.model_copy(update={"data_workers": 1})).steps == 10.0
    assert hours(work, RATES, ON_CORES) == Hours(None, None)
    assert hours(work, None, ON_GPUS).all is None
    assert hours(Workload(), None, ON_GPUS).all == 0.0
    on_cores = StageRates.model_validate(
        {"samples": {"per_s": 100, "by": "cpu"}, "rows": {"per_s": 10, "by": "cpu"}}
    )
    assert hours(work, on_cores, ON_CORES) == Hours(2.0, 1.25)
    assert hours(work, on_cores, ON_GPUS) == Hours(None, 0.625)
    alone = StageRates.model_validate({"rows": {"per_s": 10, "by": "driver"}})
    assert hours(Workload(rows=36_000), alone, ON_GPUS).all == 1.0


def test_a_bill_says_what_it_leaves_out():
    entries = [{"name": "a", "hours": 2.0}, {"name": "b", "hours": None}, {"name": "c", "hours": 0}]
    due = bill(entries, 3.5)
    assert (due.hours, due.without, due.cost) == (2.0, ("b",), 7.0)
    assert bill(entries, None).cost is None


def test_later_files_win_rate_by_rate(tmp_path: Path):
    measured = {"propose": {"rows": {"per_s": 20, "by": "gpu"}, "measured": {"seconds": 1}}}
    found = read_rates([SHIPPED, file(tmp_path, stages=measured)])
    assert found.stages["propose"].rows.per_s == 20
    assert found.stages["propose"].samples == read_rates([SHIPPED]).stages["propose"].samples
    assert found.estimated
    assert found.what.endswith("; a test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": {}}, "unknown key 'stage', did you mean 'stages'"),
        ({"stages": {"crop": {"row": {"per_s": 1, "by": "cpu"}}}}, "unknown key 'stages.crop.row'"),
        ({"stages": {"crop": {"rows": {"per_s": 0, "by": "cpu"}}}}, "greater than 0"),
        ({"stages": {"crop": {"rows": {"per_s": 1, "by": "tpu"}}}}, "'gpu', 'cpu' or 'driver'"),
        ({"estimated": None}, "estimated"),
    ],
)
def test_files_are_closed(tmp_path: Path, change: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        read_rates([file(tmp_path, **change)])


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        read_rates([tmp_path / "none.json"])


def test_shipped_estimates_say_where_they_come_from_and_name_every_stage(small_run):
    rates = read_rates([SHIPPED])
    assert rates.estimated
    stages = {node.stage.ID for node in open_pipeline(small_run.overrides).nodes.values()}
    assert set(rates.stages) == stages - {
        "count",
        "curate",
    }  # given there; no work
    for told in rates.stages.values():
        assert all(rate.why for rate in (told.samples, told.rows) if rate)


def test_plan_tells_hours_and_cost(small_run, tmp_path: Path):
    every = {"samples": {"per_s": 10, "by": "cpu"}, "rows": {"per_s": 4, "by": "driver"}}
    names = [name for name in read_rates([SHIPPED]).stages if name != "evaluate"]
    path = file(tmp_path, stages=dict.fromkeys([*names, "count"], every))
    fresh = [*small_run.overrides, f"storage={tmp_path / 'new'}"]
    done = gcdis("plan", fresh, "--rates", str(path), "--price-per-hour", "36", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = {stage["name"]: stage["hours"] for stage in told["stages"]}
    seconds = {name: round(3600 * value, 3) for name, value in found.items() if value is not None}
    assert told["without"] == ["evaluate"]
    assert seconds["ingest"] == 48 / 4
    assert seconds["propose"] == 30 * 4 / (10 * 2) + 24 / 4  # two workers, one driver
    assert seconds["crop"] == 40 / 4
    assert seconds["segment"] == 8 * 4 / (10 * 2)
    assert seconds["predict"] == 8 / 4
    assert told["cost"] == pytest.approx(sum(seconds.values()) / 100, rel=1e-3)
    shown = gcdis("plan", fresh, "--rates", str(path), "--price-per-hour", "36").stdout
    assert "(without evaluate: not known)" in shown
    assert "rates (measured): a test" in shown


def test_what_is_cached_costs_nothing(small_run):
    entries = describe(open_pipeline(small_run.overrides), read_rates([SHIPPED]))
    assert {entry["hours"] for entry in entries} == {0.0}


def test_splits_of_images_that_are_there_are_counted(small_run, tmp_path: Path):
    """With ingest cached, propose is known to train on the labeled images alone."""
    every = {"samples": {"per_s": 10, "by": "cpu"}, "rows": {"per_s": 4, "by": "driver"}}
    rates = read_rates([file(tmp_path, stages={"propose": every})])
    other = [*small_run.overrides, "stages.propose.training.epochs=2"]
    entries = {e["name"]: e for e in describe(open_pipeline(other), rates)}
    assert entries["ingest"]["action"] == "cached"
    assert round(3600 * entries["propose"]["hours"], 3) == 2 * 16 / (10 * 2) + 24 / 4


@pytest.mark.parametrize("more", [("--price-per-hour", "3"), ("--price-per-hour", "-1")])
def test_a_price_alone_or_below_nothing_is_refused(small_run, more: tuple[str, ...]):
    rates = ("--rates", str(SHIPPED)) if more[1] == "-1" else ()
    done = gcdis("plan", small_run.overrides, *rates, *more)
    assert done.returncode == 2
    assert "--price-per-hour" in done.stderr


def test_hours_are_not_known_where_nobody_says_what_images_are_for():
    node: Any = SimpleNamespace(
        name="crop", takes={"images": "mine"}, stage=crop, config=crop.Config.model_validate({})
    )
    pipeline: Any = SimpleNamespace(config=SimpleNamespace(compute=ON_GPUS))
    rates, mine = read_rates([SHIPPED]), Size(100, 0)
    counted = replace(mine, splits={"labeled": 40, "unlabeled": 50, "validation": 10})
    found = [
        plan._hours(pipeline, node, {"mine": size, "crop": Size(7, 0)}, rates)
        for size in (mine, counted)
    ]
    assert found == [None, 90 / (226 * 16) / 3600]
