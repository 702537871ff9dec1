"""Stages curate and label on the few crops of a small discovery, with decisions and without."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_discovery import artifact, run_discover
from stage_inputs import inputs_of

from gcdis_ray.clustering.reliability import stability
from gcdis_ray.curating.acts import Merge, Name, Note, Reject, Split
from gcdis_ray.errors import CurationError
from gcdis_ray.methods.groups import group_probabilities
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.run.work import local_work
from gcdis_ray.stages import curate, label
from gcdis_ray.store.members import schemas_of
from gcdis_ray.store.storage import open_storage

SCHEMAS = schemas_of((*curate.GIVES, *label.GIVES))


@pytest.fixture(scope="module")
def discovered(tmp_path_factory):
    """A small discovery whose crops lie in known clusters, whatever it has learned."""
    from tables import SCHEMAS as every

    work = run_discover(local_work(open_storage(str(tmp_path_factory.mktemp("d"))), every))
    return artifact(work)


def _follow(discovered, tmp_path, *acts):
    """Artifacts of curate and label after these acts."""
    storage, found = open_storage(str(tmp_path)), {"discover": discovered}
    config = curate.decided(curate.Config(), acts)
    for stage, stage_config in ((curate, config), (label, label.Config())):
        base = f"{stage.ID}/{len(storage.folders(stage.ID))}"
        work = local_work(storage, SCHEMAS, base=base)
        stage.run(inputs_of(stage, found), stage_config, work)
        found[stage.ID] = artifact(work)
    return found


def _files(made) -> dict[str, list[str]]:
    return {name: [f.sha256 for f in files] for name, files in made.manifest.files.items()}


def _columns(made, member: str, *columns: str) -> list[np.ndarray]:
    rows = made.table(member).read(list(columns))
    return [rows[name].to_numpy() for name in columns]


def _unlabeled(discovered) -> dict[int, list[int]]:
    """Cluster -> its unlabeled crops."""
    found: dict[int, list[int]] = {}
    for crop, given, cluster in zip(
        *_columns(discovered, "assignments", "crop_index", "class_index", "cluster_id"),
        strict=True,
    ):
        if given < 0:
            found.setdefault(int(cluster), []).append(int(crop))
    return found


def test_without_decisions_it_is_discovery_and_label_is_as_without_it(discovered, tmp_path):
    plain = _follow(discovered, tmp_path)
    ids = _columns(plain["curate"], "partition", "crop_index", "cluster_id")
    wanted = _columns(discovered, "assignments", "crop_index", "cluster_id")
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(ids, wanted, strict=True))
    assert [s.rows for s in plain["curate"].table("partition").shards] == [5, 4, 0, 3]
    assert plain["curate"].json("discovered_classes") == discovered.json("discovered_classes")
    work = local_work(open_storage(str(tmp_path)), SCHEMAS, base="label/alone")
    label.run(inputs_of(label, discovered), label.Config(), work)
    assert _files(artifact(work)) == _files(plain["label"])
    named = _follow(discovered, tmp_path, Name(5, "zebra"))
    assert _files(named["curate"]) == _files(plain["curate"])


def test_merged_outputs_are_judged_as_one(discovered, tmp_path):
    clusters = _unlabeled(discovered)
    assert len(clusters) > 1, "the small discovery tells unlabeled crops apart"
    first, second = sorted(clusters)[-2:]
    kept = _follow(discovered, tmp_path, Merge((clusters[first][0], clusters[second][0])))
    done = kept["curate"].json("curation")
    assert done["class_of_cluster"][first] == done["class_of_cluster"][second] == first
    assert (done["merges"], done["splits"], done["rejections"]) == (1, 0, 0)
    assert len(kept["curate"].json("discovered_classes")) == 4
    crop, cluster, probability, stable = _columns(
        kept["label"], "pseudo_labels", "crop_index", "cluster_id", "probability", "stability"
    )
    merged = np.isin(crop, [*clusters[first], *clusters[second]])
    assert (cluster[merged] == first).all()
    # by the method itself: probabilities of both outputs are those of one
    crops = discovered.table("crops").read()
    stored = StoredMethod.read(discovered)
    groups = [[k] for k in range(5) if k not in (first, second)]
    groups.insert(first, [first, second])
    snapshots = stored.open_snapshots("cpu")(crops)
    one = np.stack([group_probabilities(found, groups) for found in snapshots])[:, crop]
    np.testing.assert_allclose(stable, stability(one), rtol=1e-5)
    np.testing.assert_allclose(probability[merged], one[-1][merged, first], rtol=1e-5)
    best = stored.open("cpu").infer(crops).probabilities_NC[crop].max(axis=1)
    np.testing.assert_allclose(probability[~merged], best[~merged], rtol=1e-5)
    assert (probability[merged] > best[merged]).all()


def test_a_part_is_a_class_of_its_own_and_judged_by_its_own_distribution(discovered, tmp_path):
    clusters = _unlabeled(discovered)
    part = next(crops for crops in clusters.values() if len(crops) > 1)[:1]
    plain = _follow(discovered, tmp_path)["label"]
    split = _follow(discovered, tmp_path, Split(tuple(part)))
    columns = ("crop_index", "cluster_id", "stability", "probability", "reliability")
    was, now = (_columns(made, "pseudo_labels", *columns) for made in (plain, split["label"]))
    mine = now[0] == part[0]
    assert now[1][mine].tolist() == [5]
    assert np.array_equal(now[2], was[2])
    assert np.array_equal(now[3], was[3])
    assert now[4][mine].tolist() == [1.0]  # the only one of its class
    assert split["curate"].json("discovered_classes")[5]["name"] == "novel 4"


def test_rejected_crops_get_no_label(discovered, tmp_path):
    clusters = _unlabeled(discovered)
    novel = max(k for k in clusters if k >= 2)
    made = _follow(discovered, tmp_path, Reject(clusters[novel][0]))
    assert made["curate"].json("curation")["rejected_crops"] == len(clusters[novel])
    labeled = {int(c) for c in _columns(made["label"], "pseudo_labels", "crop_index")[0]}
    everyone = {crop for crops in clusters.values() for crop in crops}
    assert labeled == everyone - set(clusters[novel])
    assert [s.rows is not None for s in made["label"].table("pseudo_labels").shards] == [True] * 4


def test_what_cannot_be_followed_is_named(discovered, tmp_path):
    act = Reject(99, Note("runs/names/k/00000.json, line 4"))
    with pytest.raises(CurationError, match=r"00000.json, line 4: there is no crop 99"):
        _follow(discovered, tmp_path, act)


def test_withheld_labels_are_not_curated(discovered, tmp_path):
    files = dict(discovered.manifest.files) | {"holdout": discovered.manifest.files["method"]}
    tuned = dataclasses.replace(
        discovered, manifest=dataclasses.replace(discovered.manifest, files=files)
    )
    work = local_work(open_storage(str(tmp_path)), SCHEMAS, base="curate/0")
    curate.run(inputs_of(curate, tuned), curate.Config(), work)
    config = curate.decided(curate.Config(), [Reject(5)])
    with pytest.raises(CurationError, match="for tuning"):
        curate.run(inputs_of(curate, tuned), config, work)
