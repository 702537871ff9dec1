"""What the pipeline asks of a discovery method: found by name, configured, stored and opened."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from scene_tables import FakeArtifact, memory_tensors

from gcdis_ray import plugins
from gcdis_ray.config import StageConfig
from gcdis_ray.errors import ConfigError
from gcdis_ray.methods import method as methods
from gcdis_ray.methods.method import Fitted, load_method
from gcdis_ray.methods.stored_method import StoredMethod, method_document
from gcdis_ray.stages import discover
from gcdis_ray.stages.discover import Discovery


class Options(StageConfig):
    scale: float = 1.0


def toy(**changes: Any) -> SimpleNamespace:
    """A method without snapshots whose answer is its weights."""

    def load(spec, weights, others, device):
        return SimpleNamespace(
            spec=spec,
            weights=weights,
            others=others,
            device=device,
            num_outputs=2,
            width=1,
            each=lambda snapshots: lambda crops: [tensors["w"].item() for tensors in snapshots],
        )

    unused = dict(check=None, forecast=None, fit=None, sees_through=None)
    placed = dict(starts_placed=lambda config: False)
    common = dict(VERSION=3, Config=Options, GIVES=(), load=load, **placed, **unused)
    abilities = dict(USES_EMBEDDINGS=False, SNAPSHOTS=False, MEASURES=False, CHOOSES=False)
    return SimpleNamespace(**common | abilities | changes)


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> type[Discovery]:
    """Method ``toy`` is there as an entry point; the config of stage discover that then is."""
    point = SimpleNamespace(name="toy", value="x", load=toy, dist=None)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [point] if group == "gcdis_ray.methods" else []
    )
    return discover._config()


FITTED = Fitted({"size": 2}, "weights", ("space",), (5, 10))
TENSORS = {
    "weights": {"w": torch.tensor([3.0])},
    "space": {"mean": torch.tensor([1.0])},
    "snapshot_5": {"w": torch.tensor([1.0])},
    "snapshot_10": {"w": torch.tensor([2.0])},
}


@pytest.mark.parametrize("groups", [None, [[0], [1]]])
def test_a_method_is_read_as_it_was_written(plugged, groups):
    told = method_document("toy", FITTED, groups)
    members = {name: memory_tensors(tensors) for name, tensors in TENSORS.items()}
    found = StoredMethod.read(FakeArtifact({"method": json.loads(json.dumps(told)), **members}))
    assert (found.name, found.spec, found.groups) == ("toy", {"size": 2}, groups)
    assert list(found.snapshots) == [5, 10]
    assert not found.uses_embeddings
    opened = found.open("cpu")
    trained: Any = opened if groups is None else opened.trained  # pyright: ignore[reportAttributeAccessIssue]
    assert trained.weights["w"].item() == 3
    assert trained.others["space"]["mean"].item() == 1
    assert trained.device == "cpu"
    infer = found.grouped(None).open_snapshots("cpu")
    assert infer(pa.table({})) == [1, 2]


def test_an_unknown_method_lists_the_known(plugged):
    assert {"gcdis", "toy"} <= set(methods.method_names())
    with pytest.raises(ConfigError, match=r"unknown method 'nothing'\s.*'gcdis'.*'toy'") as error:
        load_method("nothing")
    assert error.value.where == "stages.discover.method"
    with pytest.raises(ConfigError, match="unknown method"):
        plugged.model_validate({"method": "nothing"})


def test_a_method_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch):
    def load():
        raise ImportError("no module")

    dist = SimpleNamespace(name="paper-package")
    point = SimpleNamespace(name="toy", value="paper:m", load=load, dist=dist)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.raises(ConfigError, match=r"method toy: paper:m cannot be loaded.*no module") as e:
        load_method("toy")
    assert "paper-package" in str(e.value)


def test_the_chosen_method_gets_a_section_and_no_other_has_one(plugged):
    config = plugged.model_validate({"method": "toy"})
    assert config.options == Options()
    assert config.gcdis is None  # pyright: ignore[reportAttributeAccessIssue]
    assert plugged.model_validate({}).method == "gcdis"
    with pytest.raises(ConfigError, match="options of gcdis, and the method is toy") as error:
        plugged.model_validate({"method": "toy", "gcdis": {"snapshots": 3}})
    assert error.value.where == "stages.discover.gcdis"
    assert plugged.model_validate({"method": "toy", "gcdis": {}}).method == "toy"


def test_the_key_is_of_the_method_its_version_and_its_options(plugged):
    plain = plugged.model_validate({"method": "toy"}).key_fields()
    other = plugged.model_validate({"method": "toy", "toy": {"scale": 2}}).key_fields()
    assert set(plain) == {"method", "top_k", "hold_out", "prune", "method_version", "toy"}
    assert (plain["method_version"], plain["toy"], other["toy"]) == (3, {"scale": 1}, {"scale": 2})


def test_what_a_method_cannot_do_is_refused(plugged):
    with pytest.raises(ConfigError, match="toy has no snapshots to prune outputs by") as error:
        plugged.model_validate({"method": "toy", "prune": {"enabled": True}})
    assert error.value.where == "stages.discover.prune.enabled"
    held = {"share": 0.5, "every": 5}
    with pytest.raises(ConfigError, match="toy measures a hold-out at the end only") as error:
        plugged.model_validate({"method": "toy", "hold_out": held})
    assert error.value.where == "stages.discover.hold_out.every"
    assert plugged.model_validate({"method": "toy", "hold_out": held | {"every": 0}})
    assert plugged.model_validate({"hold_out": held, "prune": {"enabled": True}})  # gcdis can


def test_a_method_on_embeddings_needs_them(monkeypatch: pytest.MonkeyPatch):
    needy = toy(USES_EMBEDDINGS=True, check=lambda options, givers: None)
    point = SimpleNamespace(name="toy", value="x", load=lambda: needy, dist=None)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    config = discover._config().model_validate({"method": "toy"})
    with pytest.raises(ConfigError, match="works on embeddings, and the recipe has none"):
        discover.check(config, {})
    discover.check(config, {"embeddings": Options()})
