"""Closed models, near-name hints, overrides, and keys that depend on exactly what they should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from coco_folder import make_coco_folder
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator
from small_run import open_pipeline, small_overrides

from gcdis_ray.config import (
    Closed,
    ComputeConfig,
    TrainingConfig,
    apply_overrides,
    read_yaml,
    run_config_model,
    validate,
)
from gcdis_ray.data.sets.splits import plan_data
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods.method import method_names
from gcdis_ray.run.graph import load_recipe, recipe_names
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.store.artifacts import artifact_key, canonical_json

STAGES = {n: w.node.stage.Config for n, w in load_recipe("gcdis").items() if w.config_name == n}
MODEL = run_config_model(STAGES)
CONFIGS = [
    p
    for p in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
    if not p.name.startswith("sweep_")
]
MINIMAL: dict[str, Any] = {
    "name": "x",
    "stages": {
        "ingest": {
            "root": "data",
            "labeled": {"images": "a", "annotations": "a.json"},
            "unlabeled": {"images": "b"},
            "validation": {"images": "c", "annotations": "c.json"},
            "known_classes": ["cat"],
        }
    },
}


def _models(model: Any, path: str = ""):
    """Every nested config model with its dotted path."""
    from typing import get_args

    from pydantic import BaseModel

    yield path, model
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _models(kind, f"{path}.{name}".strip("."))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_shipped_configs_are_valid(path: Path):
    assert load_config(path).name


def test_a_coco_folder_without_splits_by_the_lines_in_the_config(tmp_path: Path):
    """What the head of ``coco_folder.yaml`` tells people to write gives three disjoint sets."""
    path = CONFIGS[0].with_name("coco_folder.yaml")
    lines = re.findall(r"^#   (labeled|unlabeled|validation|known_classes): (.*)$",
                       path.read_text(), re.M)  # fmt: skip
    assert len(lines) == 4
    make_coco_folder(tmp_path / "data", num_images=40)
    (tmp_path / "data" / "all.json").rename(tmp_path / "data" / "instances.json")
    overrides = [f"stages.ingest.{name}={value}" for name, value in lines]
    overrides += ["stages.ingest.known_classes=[cat, dog]", f"storage={tmp_path / 'storage'}"]
    config = load_config(path, [*overrides, f"stages.ingest.root={tmp_path / 'data'}"])
    images = plan_data(config.stages.ingest).images
    assert min(len(part) for part in images.values()) > 0
    assert sum(len(part) for part in images.values()) == 40


def test_minimal_config_is_enough():
    assert validate(MODEL, MINIMAL, "test").compute.workers == 2


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("stages.discover.epochs=5", "stages.discover.gcdis.training.epochs"),
        ("count.num_novel=12", "stages.count"),
        ("stages.discover.gcdis.training.step=5", "steps"),
        ("stages.segment.cosine_scale=10", "stages.segment.classifier.cosine_scale"),
        ("workers=3", "compute.workers"),
        ("stages.count.zzz=1", "valid: also, backend"),
    ],
)
def test_unknown_key_names_the_one_that_was_meant(wrong: str, meant: str):
    with pytest.raises(ConfigError) as caught:
        validate(MODEL, apply_overrides(MINIMAL, [wrong]), "test")
    assert meant in str(caught.value)


def test_epochs_give_the_steps():
    training = TrainingConfig(epochs=2.5, batch_size=32)
    assert training.over(100).steps == 8
    assert training.over(1).steps == 1
    assert TrainingConfig(steps=7).over(100).steps == 7
    with pytest.raises(ConfigError, match="epochs"):
        validate(MODEL, apply_overrides(MINIMAL, ["stages.propose.training.epochs=0"]), "test")


def test_a_rule_over_fields_is_told_in_its_own_words():
    class Pair(Closed):
        low: int
        high: int

        @model_validator(mode="after")
        def _ordered(self) -> Pair:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    with pytest.raises(ConfigError) as caught:
        validate(Pair, {"low": 2, "high": 1}, "pair.yaml")
    assert str(caught.value) == "pair.yaml: low is above high"


def _method(path: str) -> list[str]:
    """An override that chooses the method whose options the path is of."""
    named = path.removeprefix("stages.discover.").split(".")[0]
    return [f"stages.discover.method={named}"] if named in method_names() else []


@pytest.mark.parametrize("path", sorted({p for p, _ in _models(MODEL)}))
def test_unknown_key_at_every_level_suggests_the_near_one(path: str):
    model = dict(_models(MODEL))[path]
    name = max(model.model_fields, key=len, default="anything")  # curate has none
    wrong = name[:-1] + "_"
    prefix = f"{path}." if path else ""
    method = _method(path)
    overrides = [*method, f"{prefix}{wrong}=1"]
    with pytest.raises(ConfigError) as caught:
        validate(MODEL, apply_overrides(MINIMAL, overrides), "test")
    assert wrong in str(caught.value)
    hints = ("did you mean", "valid:", "is a value, not a section")  # the last: a list or section
    assert any(hint in str(caught.value) for hint in hints)


def test_every_number_is_bounded_in_the_schema():
    unbounded = []
    for path, model in _models(MODEL):
        for name, schema in model.model_json_schema()["properties"].items():
            for option in schema.get("anyOf", [schema]):
                if (
                    option.get("type") in ("integer", "number")
                    and "enum" not in option
                    and not ({"minimum", "exclusiveMinimum"} & set(option))
                ):
                    unbounded.append(f"{path}.{name}")
    assert unbounded == []


def test_numbers_out_of_bounds_are_refused():
    for override in ("seed=-1", "compute.workers=0", "compute.threads=0", "compute.wait_s=0"):
        with pytest.raises(ConfigError, match=override.split("=")[0].split(".")[-1]):
            validate(MODEL, apply_overrides(MINIMAL, [override]), "test")


def test_wrong_type_names_key_and_value():
    with pytest.raises(ConfigError, match=r"compute\.workers.*'many'"):
        validate(MODEL, apply_overrides(MINIMAL, ["compute.workers=many"]), "test")


@pytest.mark.parametrize("gpus", [2, 0.5, -1])
def test_a_training_worker_has_one_gpu_or_none(gpus: float):
    with pytest.raises(ConfigError, match=r"gpus_per_worker': a training worker has one GPU or no"):
        validate(ComputeConfig, {"gpus_per_worker": gpus}, "c.yaml")


def test_data_steps_share_gpus_where_training_has_some():
    def share(**values: float | None) -> float:
        return ComputeConfig.model_validate(values).data_gpus

    assert (share(), share(gpus_per_worker=1)) == (0, 0.25)
    assert share(gpus_per_data_worker=0.5) == 0.5
    assert share(gpus_per_worker=1, gpus_per_data_worker=0) == 0


def test_overrides_reach_deep_and_leave_the_original_alone():
    changed = apply_overrides(MINIMAL, ["stages.count.num_novel=12", "compute.runtime=local"])
    assert changed["stages"]["count"]["num_novel"] == 12
    assert "count" not in MINIMAL["stages"]
    for bad in ("stages", "=3", "name.x=1"):
        with pytest.raises(ConfigError):
            apply_overrides(MINIMAL, [bad])


def test_unreadable_files(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    for text in ("a: [1,", "- 1", "!!python/object/apply:os.system ['true']", "\x00"):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(ConfigError):
            read_yaml(tmp_path / "bad.yaml")


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ConfigError, match="gcdis"):
        load_recipe("nothing")
    assert "gcdis" in recipe_names()


def test_only_evaluate_takes_the_sealed_ground_truth():
    graph = load_recipe("gcdis")
    assert [n for n, w in graph.items() if "ground_truth" in w.takes.values()] == ["evaluate"]
    assert [n for n, wired in graph.items() if wired.opens_sealed] == ["evaluate"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.randoms())
def test_canonical_json_ignores_the_order_of_keys(value: dict[str, Any], random: Any):
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


def test_key_changes_with_every_part():
    base = dict(stage="s", version=1, config={"a": 1}, inputs={"i": "k"}, seed=0, source="x")
    keys = {artifact_key(**base)}  # type: ignore[arg-type]
    for change in (
        {"stage": "t"},
        {"version": 2},
        {"config": {"a": 2}},
        {"inputs": {"i": "l"}},
        {"seed": None},
        {"source": None},
    ):
        keys.add(artifact_key(**(base | change)))  # type: ignore[arg-type]
    assert len(keys) == 7


def test_where_it_runs_changes_no_key(tmp_path: Path):
    overrides = small_overrides(tmp_path)

    def keys(*more: str) -> dict[str, str]:
        return {n: node.key for n, node in open_pipeline([*overrides, *more]).nodes.items()}

    elsewhere = {
        "runtime": "ray", "address": "auto", "workers": 1, "data_workers": 7, "threads": 3,
        "gpus_per_worker": 1, "gpus_per_data_worker": 0.5, "strategy": "deepspeed",
        "zero_stage": 2, "checkpoint_every_s": 5, "max_failures": 0, "num_cpus": 3,
        "object_store_mb": 100, "wait_s": 7, "decode_threads": 4, "slow_bf16": True,
    }  # fmt: skip
    assert set(elsewhere) == set(ComputeConfig.model_fields)
    changes = [f"compute.{name}={value}" for name, value in elsewhere.items()]
    assert keys() == keys(*changes, f"storage={tmp_path / 'elsewhere'}", "name=other")
    assert keys()["ingest"] == keys("stages.ingest.max_quarantined_share=0.5")["ingest"]
    assert keys()["propose"] != keys("stages.propose.training.precision=bf16")["propose"]
