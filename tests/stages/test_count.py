"""Stage count: by hand, and from embeddings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scene_tables import FakeArtifact, memory_table
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.clustering.class_count.trials import Trial
from gcdis_ray.config import ComputeConfig
from gcdis_ray.errors import DataError
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.base import Runtime
from gcdis_ray.runtime.local import LocalRuntime
from gcdis_ray.stages import count
from gcdis_ray.store.storage import LocalStorage


def _inputs(num_classes: int = 6, num_known: int = 3, per_class: int = 40) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    center = F.normalize(torch.randn(num_classes, 16, generator=generator), dim=1)
    rows = []
    for n in range(num_classes * per_class):
        label = n % num_classes
        vector = center[label] + 0.1 * torch.randn(16, generator=generator)
        labeled = label < num_known and n % 2 == 0
        rows.append(
            {
                "crop_index": n,
                "class_index": label if labeled else -1,
                "embedding": F.normalize(vector, dim=0).tolist(),
            }
        )
    rows.sort(key=lambda row: row["class_index"] < 0)
    classes = [{"class_index": c, "category_id": c + 1, "name": str(c)} for c in range(num_known)]
    return {
        "embed": FakeArtifact({"embeddings": memory_table("embeddings", [rows[:40], rows[40:]])}),
        "ingest": FakeArtifact({"classes": classes}),
    }


@contextmanager
def _work(folder: Path, ray_address: str = "") -> Iterator[StageWork]:
    """A stage's Work in this process, or on two workers of a Ray."""
    compute = ComputeConfig(
        runtime="ray" if ray_address else "local", address=ray_address or None, data_workers=2
    )
    if ray_address:
        from gcdis_ray.runtime.ray_runtime import RayRuntime

        runtime: Runtime = RayRuntime(compute)
    else:
        runtime = LocalRuntime(compute)
    attempt = Attempt(LocalStorage(str(folder)), "stage/key", "attempt-0", SCHEMAS)
    try:
        yield StageWork(attempt, lambda: runtime, compute, 0, lambda progress: None)
    finally:
        runtime.close()


def _config(**values: Any) -> count.Config:
    return count.Config.model_validate(values)


def _result(work) -> dict[str, Any]:
    return json.loads(work.opener.read_bytes(work.files["class_count"][0]))


def test_a_given_number_is_taken(local_work) -> None:
    count.run(inputs_of(count, _inputs()), _config(num_novel=12), local_work)
    assert _result(local_work) == {
        "method": "given",
        "num_known": 3,
        "num_novel": 12,
        "num_classes": 15,
        "interval": [15, 15],
        "curve": [],
        "warning": None,
        "space": None,
        "combines": [],
        "others": [],
    }


def test_the_number_is_estimated_from_embeddings(local_work) -> None:
    inputs = _inputs(num_classes=7, num_known=4)
    config = _config(num_seeds=3, num_candidates=8)
    count.run(inputs_of(count, inputs), config, local_work)
    result = _result(local_work)
    assert result["num_classes"] == pytest.approx(7, abs=1)
    assert result["num_novel"] == result["num_classes"] - 4
    assert result["interval"][0] <= result["num_classes"] <= result["interval"][1]
    assert result["method"] == "combined"
    assert tuple(result["combines"]) == count.COMBINED
    for part in result["others"]:
        assert part["method"] in count.COMBINED
        assert {"num_classes", "score", "accuracy", "silhouette"} <= part["curve"][0].keys()


@pytest.mark.parametrize("method", ["combined", "mixture"])
def test_other_estimators_are_shown_and_change_nothing(local_work, tmp_path, method: str) -> None:
    inputs = _inputs(num_classes=7, num_known=4)
    few = {"method": method, "num_seeds": 1, "num_candidates": 4}
    others = ("density",) if method == "combined" else ("labeled_accuracy", "holdout", "density")
    count.run(inputs_of(count, inputs), _config(also=others, **few), local_work)
    result = _result(local_work)
    shown = [other for other in result["others"] if other["method"] not in result["combines"]]
    assert tuple(other["method"] for other in shown) == others
    for other in shown:
        assert other["interval"][0] <= other["num_classes"] <= other["interval"][1]
        assert other["curve"]
    with _work(tmp_path / "alone") as work:
        count.run(inputs_of(count, inputs), _config(**few), work)
        parts = [other for other in result["others"] if other not in shown]
        assert _result(work) == result | {"others": parts}


def test_an_estimator_that_is_a_part_is_not_shown_again(local_work) -> None:
    config = _config(also=("holdout",), num_seeds=1, num_candidates=4)
    count.run(inputs_of(count, _inputs()), config, local_work)
    assert [other["method"] for other in _result(local_work)["others"]] == list(count.COMBINED)


def test_rounding_of_the_embeddings_does_not_move_the_count(local_work, tmp_path) -> None:
    inputs, config = _inputs(num_classes=7, num_known=4), _config(num_seeds=2, num_candidates=6)
    count.run(inputs_of(count, inputs), config, local_work)
    rows = inputs["embed"].table("embeddings").read().to_pylist()
    generator = torch.Generator().manual_seed(3)
    for row in rows:
        vector = torch.tensor(row["embedding"])
        noise = 1 + 1e-6 * torch.randn(len(vector), generator=generator)
        row["embedding"] = (vector * noise).tolist()
    table = memory_table("embeddings", [rows[:40], rows[40:]])
    moved = inputs | {"embed": FakeArtifact({"embeddings": table})}
    with _work(tmp_path / "moved") as work:
        count.run(inputs_of(count, moved), config, work)
        one, two = _result(local_work), _result(work)
    assert (one["num_classes"], one["interval"]) == (two["num_classes"], two["interval"])


@pytest.mark.parametrize("space", ["principal", "half_whitened", "whitened"])
def test_any_space_counts_separate_classes(local_work, space: str) -> None:
    config = _config(space=space, num_seeds=1, num_candidates=6)
    count.run(inputs_of(count, _inputs(num_classes=7, num_known=4)), config, local_work)
    assert _result(local_work)["num_classes"] == pytest.approx(7, abs=1)


@pytest.mark.ray
@pytest.mark.thorough
def test_the_same_numbers_on_any_number_of_workers(tmp_path, ray_address) -> None:
    inputs = _inputs(num_classes=5, num_known=3)
    config = _config(num_seeds=2, num_candidates=6)
    with _work(tmp_path / "one") as work:
        count.run(inputs_of(count, inputs), config, work)
        one = {name: [r.sha256 for r in files] for name, files in work.files.items()}
    with _work(tmp_path / "two", ray_address) as work:
        count.run(inputs_of(count, inputs), config, work)
        two = {name: [r.sha256 for r in files] for name, files in work.files.items()}
    assert one == two
    assert {"class_count", "points", "trials"} <= one.keys()


def test_known_classes_without_crops_still_count(local_work) -> None:
    inputs = _inputs(num_classes=4, num_known=2)
    more = inputs["ingest"].json("classes") + [{"class_index": c} for c in range(2, 30)]
    count.run(
        inputs_of(count, inputs | {"ingest": FakeArtifact({"classes": more})}),
        _config(num_seeds=2, num_candidates=6),
        local_work,
    )
    result = _result(local_work)
    assert result["num_classes"] == result["num_known"] == 30
    assert result["interval"] == [30, 30]


@pytest.mark.parametrize("method", ["combined", *count.COMBINED, "density"])
@pytest.mark.parametrize("num_unlabeled", range(1, 8))
@pytest.mark.parametrize("max_classes", [None, 1000])
def test_one_known_class_and_a_few_crops_are_counted(
    local_work, method: str, num_unlabeled: int, max_classes: int | None
) -> None:
    rows = _inputs(num_classes=2, num_known=1, per_class=20)["embed"].table("embeddings")
    rows = rows.read().to_pylist()
    few = [row for row in rows if row["class_index"] == 0][:2]
    few += [row for row in rows if row["class_index"] < 0][:num_unlabeled]
    inputs = {
        "embed": FakeArtifact({"embeddings": memory_table("embeddings", [few])}),
        "ingest": FakeArtifact({"classes": [{"class_index": 0}]}),
    }
    config = _config(method=method, max_classes=max_classes, num_seeds=1, num_candidates=4)
    count.run(inputs_of(count, inputs), config, local_work)
    result = _result(local_work)
    assert 1 <= result["num_classes"] <= len(few)
    assert all(part["curve"] for part in ([result] if method != "combined" else result["others"]))


def test_what_the_mixture_cannot_count_is_not_called_tried() -> None:
    """The count is at least that of the known classes, so that it warns."""
    sizes = [200_000] + [2] * 7_000
    trial = Trial(0, 1.0, 100, (1.0,) * 7_000, (1.0,) * 7_000, 0.0, 0.0)
    methods: tuple[count.Estimates, ...] = ("mixture", "holdout")
    for method in methods:
        config = _config(method=method, max_classes=35_000)
        found = count.class_counts(config, sizes, 0, {method: [trial]})[method]
        assert found.num_classes == 7_000
        assert ("(6000)" in str(found.warning)) == (method == "mixture")


def test_nothing_labeled_is_a_short_error(local_work) -> None:
    with pytest.raises(DataError, match="without labeled crops"):
        count.run(inputs_of(count, _inputs(num_known=0)), _config(), local_work)


@pytest.mark.parametrize(("backend", "wanted"), [("torch", False), ("faiss", True)])
def test_faiss_wants_a_gpu(
    local_work, monkeypatch: pytest.MonkeyPatch, backend: str, wanted: bool
) -> None:
    """Where workers have none it counts on the CPU."""
    if backend == "faiss":
        pytest.importorskip("faiss")
    wants = []
    work = LocalRuntime.map_shards

    def noting(self, task, *args, **kwargs):
        wants.append(task.wants_gpu)
        work(self, task, *args, **kwargs)

    monkeypatch.setattr(LocalRuntime, "map_shards", noting)
    config = _config(num_seeds=2, num_candidates=4, method="labeled_accuracy", backend=backend)
    count.run(inputs_of(count, _inputs()), config, local_work)
    assert set(wants) == {wanted}
    assert _result(local_work)["num_classes"] == pytest.approx(6, abs=2)
