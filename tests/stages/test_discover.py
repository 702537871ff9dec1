"""Stage discover on a few crops in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_discovery import CLASSES, CONFIG, SHARDS, WriteCrops, artifact, run_discover
from small_trunk import SIDE_PX, crops_in, weights_in
from stage_inputs import inputs_of
from tables import SCHEMAS

from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.methods.hold_out import choose_hidden
from gcdis_ray.methods.hold_out_config import HoldOutConfig
from gcdis_ray.methods.pruning_config import PruneConfig
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.stages import discover, embed


@pytest.fixture
def discovered(local_work):
    return run_discover(local_work)


def test_discover_assigns_every_crop_in_its_shard(discovered):
    found, crops = discovered.table("assignments"), discovered.table("crops")
    assert [s.rows for s in found.shards] == [len(shard) for shard in SHARDS]
    rows = found.read()
    assert rows["crop_index"].to_pylist() == crops.read()["crop_index"].to_pylist()
    assert rows["class_index"].to_pylist() == [y for shard in SHARDS for y in shard]
    for row in rows.to_pylist():
        assert row["cluster_id"] == row["topk_ids"][0]
        assert 0 <= row["cluster_id"] < 5
        assert row["topk_probabilities"] == sorted(row["topk_probabilities"], reverse=True)
        assert sum(row["topk_probabilities"]) == pytest.approx(1, abs=1e-5)  # all 5 of 5
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-5)
    heat = discovered.table("headness").read()
    assert heat["crop_index"].to_pylist() == rows["crop_index"].to_pylist()
    assert min(heat["temperature"].to_pylist()) >= 0.07 - 1e-6
    assert len(set(heat["headness"].to_pylist())) > 1


def test_discover_names_known_classes_first(discovered):
    table = artifact(discovered).json("discovered_classes")
    assert [row["name"] for row in table] == ["cat", "dog", "novel 1", "novel 2", "novel 3"]
    assert [row["class_index"] for row in table] == [0, 1, 2, 3, 4]
    assert [row["category_id"] for row in table] == [7, 40, None, None, None]
    assert [row["known"] for row in table] == [True, True, False, False, False]


def test_the_method_is_opened_as_training_left_it(discovered):
    from gcdis_ray.methods.gcdis.model import load_discovery_model

    found = artifact(discovered)
    told = found.json("method")
    spec = told["spec"]
    assert (told["name"], told["weights"], told["others"]) == ("gcdis", "encoder", [])
    assert told["snapshots"] == [6, 8, 10]
    final = found.tensor_file("encoder").load()
    last = found.tensor_file("snapshot_10").load()
    assert all(bool((final[name] == last[name]).all()) for name in final)
    assert not load_discovery_model(spec, final).training


def test_members_of_options_are_absent_without_them(discovered):
    options = {"holdout", "holdout_curve", "pruning", "agreement"}
    assert not options & set(artifact(discovered).manifest.files)
    assert artifact(discovered).json("method")["groups"] is None


def test_hold_out_is_scored_at_the_end_and_on_the_way(local_work):
    config = CONFIG.model_copy(update={"hold_out": HoldOutConfig(share=0.5, every=5)})
    work = run_discover(local_work, config)
    found, rows = artifact(work), work.table("assignments").read()
    score = found.json("holdout")
    parts = {"accuracy", "known_accuracy", "novel_accuracy", "placed_accuracy"}
    assert set(score) == {"hidden_classes", "curve"} | parts
    (hidden,) = score["hidden_classes"]
    (seen,) = {"cat", "dog"} - {hidden}
    names = [row["name"] for row in found.json("discovered_classes")]
    assert names == [seen, "novel 1", "novel 2", "novel 3", "novel 4"]
    assert [row["known"] for row in found.json("discovered_classes")] == [True] + 4 * [False]
    assert rows["class_index"].to_pylist() == [y for shard in SHARDS for y in shard]
    index = next(row["class_index"] for row in CLASSES if row["name"] == hidden)
    clusters = rows["cluster_id"].to_numpy()
    mine = clusters[rows["class_index"].to_numpy() == index]
    best = max((mine == cluster).mean() for cluster in range(1, 5))
    assert score["novel_accuracy"] == pytest.approx(best)
    held = choose_hidden(rows["class_index"].to_numpy(), 2, config.hold_out)
    assert held is not None
    assert len(held.withheld) == 1
    assert score["known_accuracy"] == (clusters[held.withheld[0]] == 0)
    assert score["accuracy"] == pytest.approx((best + score["known_accuracy"]) / 2)
    assert score["placed_accuracy"] is None  # prototypes start among projections
    assert [point["step"] for point in score["curve"]] == [5, 10]
    assert score["curve"][-1]["accuracy"] == pytest.approx(score["accuracy"])  # the same crops


PRUNE = PruneConfig(
    enabled=True, over_provision=2, min_members=2, min_confidence=0, merge_cosine=-1
)


def test_clusters_are_what_pruning_left(local_work):
    work = run_discover(local_work, CONFIG.model_copy(update={"prune": PRUNE}))
    found, rows = artifact(work), work.table("assignments").read().to_pylist()
    told, pruning = found.json("method"), found.json("pruning")
    size = len(told["groups"])
    assert pruning["num_outputs"] == told["spec"]["num_classes"] == 2 + 2 * 3
    assert 2 <= size == pruning["num_clusters"] < 8
    assert told["groups"][:2] == [[0], [1]]
    names = [row["name"] for row in found.json("discovered_classes")]
    assert names == ["cat", "dog", *(f"novel {n + 1}" for n in range(size - 2))]
    assert sum(row["members"] for row in pruning["outputs"]) == len(rows) == 12
    for row in rows:
        assert row["cluster_id"] == row["topk_ids"][0] < size
        assert len(row["topk_ids"]) == min(size, 5)
        if size <= 5:
            assert sum(row["topk_probabilities"]) == pytest.approx(1, abs=1e-5)


def test_pruning_changes_no_byte_of_training_and_hidden_classes_are_free_clusters(
    local_work, tmp_path
):
    from gcdis_ray.run.attempt import Attempt
    from gcdis_ray.run.work import StageWork
    from gcdis_ray.store.storage import LocalStorage

    hold_out = HoldOutConfig(share=0.5)
    plain = CONFIG.model_copy(update={"hold_out": hold_out})
    other = StageWork(
        Attempt(LocalStorage(str(tmp_path / "other")), "stage/key", "attempt-0", SCHEMAS),
        local_work._runtime,
        local_work._compute,
        0,
        lambda progress: None,
    )
    whole = run_discover(local_work, plain).files
    same = PRUNE.model_copy(update={"over_provision": 1.0})
    work = run_discover(other, plain.model_copy(update={"prune": same}))
    pruned = work.files
    changed = {"method", "discovered_classes", "assignments", "holdout"}
    assert pruned.keys() - whole.keys() == {"pruning", "agreement"}
    for name in whole.keys() - changed:
        assert [r.sha256 for r in pruned[name]] == [r.sha256 for r in whole[name]], name
    assert artifact(work).json("method")["groups"][0] == [0]
    assert [row["known"] for row in artifact(work).json("discovered_classes")][:2] == [True, False]
    assert 0 <= artifact(work).json("holdout")["accuracy"] <= 1


def test_fewer_classes_than_known_is_refused(local_work):
    work = local_work
    work.map_shards(WriteCrops([[0]]), [], gives=["crops"], args=[{}])
    work.write_json("classes", CLASSES)
    work.write_json("class_count", {"num_classes": 1})
    with pytest.raises(ArtifactError, match="1 classes in all, but 2 are known"):
        discover.run(inputs_of(discover, artifact(work)), CONFIG, work)


@pytest.mark.parametrize("learns", ["none", 1])
def test_the_body_of_stage_embed_with_cached_views_from_where_crops_were_placed(
    local_work, tmp_path: Path, learns
):
    """Nothing but sizes is said: snapshots are opened by what lies in the artifact alone."""
    body = {"backbone": "wavelet"}
    if learns == 1:
        file = weights_in(tmp_path, "test_vit")
        body = {"backbone": "test_vit", "weights": file["weights"], "input_px": SIDE_PX}
        body["sha256"] = file["weights_sha256"]
    options = {
        "training": {"steps": 4, "batch_size": 8},
        "model": {
            "encoder": {"trainable": learns, "cached_views": 2},
            "heads": {"projection_hidden": 8, "projection_dim": 8},
        },
        "discovery": {"queue_size": 16},
        "snapshots": 2,
    }
    given = {"gcdis": options, "prune": PRUNE.model_dump(), "placing": {"splits": 1}}
    config = discover.Config.model_validate(given)
    crops_in(local_work)
    embed_config = embed.Config.model_validate(body)
    embed.run(inputs_of(embed, artifact(local_work)), embed_config, local_work)
    discover.check(config, {"embeddings": embed_config})
    local_work.write_json("classes", CLASSES)
    local_work.write_json("class_count", {"num_classes": 5})
    given = artifact(local_work)
    discover.run(inputs_of(discover, given), config, local_work)
    found = artifact(local_work)
    told = found.json("method")
    assert told["others"] == ([] if learns == "none" else ["trunk"])
    assert found.table("views").num_rows == found.table("assignments").num_rows == 12
    names = set(found.tensor_file("encoder").load())
    assert any(name.startswith("encoder.tail.blocks.0.") for name in names) == (learns == 1)
    assert len({name for name in names if name.startswith("encoder.tail.blocks.")}) in (0, 12)
    assert str(tmp_path) not in str(told)
    stored = StoredMethod.read(found)
    crops = found.table("crops").read()
    last = stored.open_snapshots("cpu")(crops)[-1]
    np.testing.assert_array_equal(last, stored.open("cpu").infer(crops).probabilities_NC)


def _gcdis(**options):
    return discover.Config.model_validate({"gcdis": options})


def test_snapshot_steps_end_at_the_last_step():
    options = _gcdis(training={"steps": 100}).options
    assert options.snapshot_steps(100) == [52, 64, 76, 88, 100]
    with pytest.raises(ConfigError, match=r"1 step.* leave no room for two snapshots"):
        _gcdis(training={"steps": 1})
    with pytest.raises(ValueError, match="two crops per part"):
        _gcdis(training={"batch_size": 6, "micro_batches": 4})
    late = {"losses": {"clustering_from": 0.7}}
    with pytest.raises(ValueError, match="knows no novel class"):
        _gcdis(discovery=late)
    assert _gcdis(discovery=late, snapshots_from=0.7)
