"""Methods that train heads on a body, through stage discover: what they leave, refuse and say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from small_discovery import SHARDS, artifact, run_discover

from gcdis_ray.errors import ConfigError, DataError
from gcdis_ray.methods.heads_on_body import check_problem
from gcdis_ray.methods.method import load_method
from gcdis_ray.methods.problem import Problem
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.stages import discover
from gcdis_ray.store.artifacts import Size

METHODS = ["simgcd", "uno"]
SMALL: dict[str, Any] = {
    "training": {"steps": 6, "batch_size": 8, "micro_batches": 2, "lr": 0.05},
    "encoder": {"body": "resnet", "input_px": 16, "blocks": [1], "widths": [8], "stem_width": 8},
    "heads": {"projection_hidden": 8, "projection_dim": 8},
    "snapshots": 3,
}
RANDOM: dict[str, Any] = {"start": "random", "sizes": "uniform"}


def config(method: str, stage: dict[str, Any] | None = None, **options: Any) -> Any:
    named = {"method": method, method: {**SMALL, **RANDOM, **options}}
    return discover.Config.model_validate({**named, **(stage or {})})


@pytest.mark.parametrize("method", METHODS)
def test_what_it_leaves_sorts_crops(local_work, method: str):
    run_discover(local_work, config(method, {"hold_out": {"share": 0.5, "every": 2}}))
    found = artifact(local_work)
    rows = found.table("assignments").read()
    assert rows.num_rows == sum(map(len, SHARDS))
    assert found.json("method")["snapshots"] == [4, 5, 6]
    assert [row["step"] for row in found.json("holdout")["curve"]] == [2, 4, 6]
    stored = StoredMethod.read(found)
    crops, opened = found.table("crops").read(), stored.open("cpu")
    said = opened.infer(crops)
    assert said.probabilities_NC.shape == (len(crops), opened.num_outputs) == (12, 5)
    assert said.embeddings_ND.shape == (len(crops), opened.width)
    np.testing.assert_allclose(said.probabilities_NC.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(said.embeddings_ND, axis=1), 1, atol=1e-5)
    assert rows["cluster_id"].to_pylist() == said.probabilities_NC.argmax(axis=1).tolist()
    earlier = stored.open_snapshots("cpu")(crops)
    np.testing.assert_array_equal(earlier[-1], said.probabilities_NC)
    assert not np.allclose(earlier[0], earlier[-1], atol=1e-4)
    assert len(opened.infer(crops.slice(0, 0)).probabilities_NC) == 0
    prototypes = opened.prototypes_KF()
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1, atol=1e-5)
    assert len(prototypes) == opened.num_outputs


@pytest.mark.parametrize("method", METHODS)
def test_outputs_can_be_pruned(local_work, method: str):
    prune = {"prune": {"enabled": True, "over_provision": 2.0, "min_members": 1}}
    run_discover(local_work, config(method, prune))
    found = artifact(local_work)
    assert found.json("pruning")["num_outputs"] == 2 + 2 * 3


@pytest.mark.parametrize("method", METHODS)
def test_placed_clusters_have_to_be_there(local_work, method: str):
    options = config(method, start="placed")
    assert load_method(method).starts_placed(options.options)
    assert not load_method(method).starts_placed(config(method).options)
    section = "losses" if method == "simgcd" else "pseudo_labels"
    changes: list[dict[str, Any]] = [{"sizes": "placed"}, {section: {"anchor": 0.5}}]
    for change in changes:
        assert load_method(method).starts_placed(config(method, **change).options)
    with pytest.raises(ConfigError, match="works on embeddings, and the recipe has none"):
        discover.check(options, {})
    discover.check(config(method), {})
    told, work = problem([0, 1, -1, -1]), local_work
    with pytest.raises(ConfigError, match="no clusters were placed") as error:
        load_method(method).fit(told, options.options, work)
    assert error.value.where == f"stages.discover.{method}.start"


@pytest.mark.parametrize("method", METHODS)
def test_the_body_of_stage_embed_has_to_be_there(method: str):
    with pytest.raises(ConfigError, match="the recipe has none") as error:
        discover.check(config(method, encoder={}), {})
    assert error.value.where == f"stages.discover.{method}.encoder.body"


def problem(labels: list[int], *, num_known: int = 2, num_outputs: int = 4) -> Problem:
    table = pa.table({"class_index": labels})
    crops: Any = SimpleNamespace(read=table.select, num_rows=len(labels))
    return Problem(crops, num_known, num_outputs, seed=0)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (problem([0, 0, -1, -1], num_known=1), "1 known class: labels have nothing to tell apart"),
        (problem([0, 1, -1, -1], num_outputs=1), "1 outputs for 2 known classes"),
        (problem([-1, -1, -1, -1]), "none of 4 crops is labeled"),
        (problem([0, 1, -1]), "4 outputs and 3 crops"),
        (problem([]), "none of 0 crops is labeled"),
    ],
)
def test_a_problem_that_cannot_be_learned_is_named(told: Problem, message: str):
    with pytest.raises(DataError, match=message) as error:
        check_problem(told)
    assert error.value.fix


def test_no_novel_class_is_no_fault():
    check_problem(problem([0, 1, -1], num_outputs=2))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("simgcd", {"training": {"batch_size": 2}}, "two crops per part"),
        ("simgcd", {"training": {"steps": 1}}, "no room for two snapshots"),
        ("uno", {"pseudo_labels": {"after": 0.8}}, "a snapshot before pseudo-labels"),
        ("uno", {"encoder": {"body": "resnet50"}}, "has no weights"),
    ],
)
def test_a_config_that_cannot_run_is_refused(method: str, options: dict[str, Any], message: str):
    with pytest.raises((ConfigError, ValueError), match=message):
        config(method, **options)


@pytest.mark.parametrize("method", METHODS)
def test_what_the_docs_call_published_is_a_config(method: str):
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    published = yaml.safe_load(text.partition("```yaml")[2].partition("```")[0])[method]
    options = discover.Config.model_validate({"method": method, method: published}).options
    assert not load_method(method).starts_placed(options)


@pytest.mark.parametrize("method", METHODS)
def test_the_key_knows_the_weights_and_not_the_cache(method: str):
    plain, large = config(method), config(method, cache_mb=9)
    assert plain.key_fields() == large.key_fields()
    assert config(method, start="placed").key_fields() != plain.key_fields()


@pytest.mark.parametrize("method", METHODS)
def test_forecast_counts_heads_for_every_snapshot(method: str):
    module, sizes = load_method(method), {"crops": Size(1000, 10**6)}
    few, many = (
        module.forecast(config(method, snapshots=count).options, sizes) for count in (3, 9)
    )
    assert many.weight_bytes == pytest.approx(few.weight_bytes * 10 / 4)
    assert many.read_bytes > 10**6
