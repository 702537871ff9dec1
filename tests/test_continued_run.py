"""The small run goes on with new scenes: old ids stay, what is new is told, nothing is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from small_run import here

from gcdis_ray.curating.acts import Merge, Name
from gcdis_ray.curating.log import append
from gcdis_ray.data.samples.digits import write_new_scenes
from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.run.opened import OpenedRun, open_run
from gcdis_ray.run.pipeline import Pipeline, load_config

UNLABELED = {"images": "images/unlabeled", "annotations": "annotations/unlabeled.json"}


class Continued(NamedTuple):
    config: str
    earlier: OpenedRun
    printed: str

    @property
    def run(self) -> OpenedRun:
        return open_run(self.config)


def storage_of(overrides: list[str]) -> str:
    return next(o.partition("=")[2] for o in overrides if o.startswith("storage="))


def config_of(folder: Path, earlier: str, scenes: Path, **stages) -> str:
    folder.mkdir(exist_ok=True)
    values = {
        "name": folder.name,
        "continue_from": earlier,
        "storage": str(folder / "storage"),
        "compute": {"runtime": "local"},
        "stages": {
            "ingest": {"root": str(scenes), "unlabeled": UNLABELED, "images_per_shard": 4},
            **stages,
        },
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "new"
    write_new_scenes(folder, num_scenes=8, letter="A")
    return folder


@pytest.fixture(scope="module")
def continued(small_run, scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Continued:
    """With so little training there may be no new class by itself: a low threshold makes some."""
    earlier = storage_of(small_run.overrides)
    stages = {"assign": {"threshold": 0.6}, "renew": {"min_size": 2}}
    config = config_of(tmp_path_factory.mktemp("once") / "once", earlier, scenes, **stages)
    done = here(["run", config])
    assert done.returncode == 0, done.stderr
    return Continued(config, open_run(earlier), done.stdout)


def table(run: OpenedRun) -> list[dict]:
    return run.artifact_with("discovered_classes").json("discovered_classes")


def test_old_classes_keep_their_ids_and_names(continued: Continued):
    before, after = table(continued.earlier), table(continued.run)
    assert after[: len(before)] == before
    new = after[len(before) :]
    assert [row["name"] for row in new] == [f"new {n + 1}" for n in range(len(new))]
    assert [row["class_index"] for row in after] == list(range(len(after)))
    assert not any(row["known"] for row in new)
    assert new


def test_it_says_what_it_kept_and_what_is_new(continued: Continued):
    told = continued.run.artifact_with("continued").json("continued")
    assert told["crops"] == told["assigned"] + told["candidates"] + told["rejected"]
    new = [row for row in told["classes"] if row["new"]]
    assert sum(row["crops"] for row in new) == told["candidates"] - told["left"]
    for line in ("nothing trained", f"new classes            {len(new)} (", "old ids unchanged"):
        assert line in continued.printed
    assert f"candidates             {told['candidates']}, of which {told['left']} make no" in (
        continued.printed
    )


def test_crops_of_old_classes_are_those_of_the_earlier_run(continued: Continued):
    earlier, kept = continued.earlier, continued.run.artifact_with("kept_crops").table("kept_crops")
    rows = kept.read(["class_index", "crop_index", "embedding"])
    partition = earlier.artifact_with("partition").table("partition").read()
    labels = earlier.artifact_with("assignments").table("assignments").read(["class_index"])
    pairs = zip(partition["cluster_id"].to_pylist(), labels["class_index"].to_pylist(), strict=True)
    class_of = [label if label >= 0 else cluster for cluster, label in pairs]
    crops = rows["crop_index"].to_pylist()
    assert [class_of[crop] for crop in crops] == rows["class_index"].to_pylist()
    vectors = earlier.artifact_with("embeddings").table("embeddings").read(["embedding"])
    assert vectors["embedding"].take(crops).to_pylist() == rows["embedding"].to_pylist()


def test_labels_are_those_of_the_partition(continued: Continued):
    made = continued.run.artifact_with("pseudo_labels")
    labels = made.table("pseudo_labels").read()
    partition = made.table("partition").read()["cluster_id"].to_pylist()
    crops = labels["crop_index"].to_pylist()
    assert [partition[crop] for crop in crops] == labels["cluster_id"].to_pylist()
    assert crops == [crop for crop, cluster in enumerate(partition) if cluster >= 0]
    assert 0 < min(labels["reliability"].to_pylist()) <= max(labels["reliability"].to_pylist()) <= 1
    assert max(labels["probability"].to_pylist()) <= 1


def test_the_page_shows_old_and_new_crops(continued: Continued, tmp_path: Path):
    page = tmp_path / "page.html"
    assert here(["report", continued.config, "--output", str(page)]).returncode == 0
    text = page.read_text()
    for part in ("What the new images brought", "Drift of every class", "earlier digit 0", "new 1"):
        assert part in text


def test_the_truth_of_new_images_is_sealed(continued: Continued, scenes: Path, tmp_path: Path):
    shutil.copytree(scenes, tmp_path / "scenes")
    truth = tmp_path / "scenes" / "annotations" / "unlabeled.json"
    data = json.loads(truth.read_text())
    truth.write_text(json.dumps(data | {"annotations": data["annotations"][::2]}))
    config = load_config(continued.config, [f"stages.ingest.root={tmp_path / 'scenes'}"])
    before, after = continued.run.keys, {n: s.key for n, s in Pipeline(config).nodes.items()}
    assert {n for n in before if before[n] != after[n]} == {"ground_truth", "evaluate"}
    for member in ("truth_instances", "metrics", "crop_truth"):
        with pytest.raises(Exception, match="sealed"):
            continued.run.artifact_with(member)


def test_names_of_the_earlier_run_are_taken_and_cost_little(
    continued: Continued, scenes: Path, tmp_path: Path
):
    shutil.copytree(continued.earlier.storage.uri, tmp_path / "earlier")
    earlier = open_run(str(tmp_path / "earlier"))
    partition = earlier.artifact_with("partition").table("partition").read()["cluster_id"]
    num_known = sum(row["known"] for row in table(earlier))
    crop = next(n for n, c in enumerate(partition.to_pylist()) if c >= num_known)
    stages = {"assign": {"threshold": 0.6}, "renew": {"min_size": 2}}
    config = config_of(tmp_path / "again", str(tmp_path / "earlier"), scenes, **stages)
    before = open_run(config)
    assert before.keys == continued.run.keys  # where a run lies does not matter
    append(earlier.storage, earlier.crops_key, [Name(crop, "zebra")])
    after = open_run(config)
    assert {n for n in before.keys if before.keys[n] != after.keys[n]} == {
        "renew",
        "curate",
        "evaluate",
    }


@pytest.mark.thorough
def test_its_classes_are_merged_like_any_others(continued: Continued, scenes: Path, tmp_path: Path):
    """Two turn out to be one: nothing before is done again, crops in no class stay there, and who
    goes on compares with the crops of both."""
    shutil.copytree(continued.run.storage.uri, tmp_path / "once" / "storage")
    config = config_of(
        tmp_path / "once", continued.earlier.storage.uri, scenes,
        assign={"threshold": 0.6}, renew={"min_size": 2},
    )  # fmt: skip
    before = open_run(config)
    assert before.keys == continued.run.keys
    rows = table(before)
    partition = before.artifact_with("partition").table("partition").read()
    class_of = dict(enumerate(partition["cluster_id"].to_pylist()))
    there = sorted({c for c in class_of.values() if c >= 0})
    old, new = there[0], there[-1]
    merged = Merge(tuple(next(n for n, c in class_of.items() if c == k) for k in (old, new)))
    append(before.storage, before.crops_key, [merged])
    after = open_run(config)
    assert {n for n in before.keys if before.keys[n] != after.keys[n]} == {"curate", "evaluate"}
    assert here(["run", config]).returncode == 0
    assert len(table(after)) == len(rows) - 1
    curated = after.artifact_with("curation").table("partition").read()["cluster_id"].to_pylist()
    assert [c < 0 for c in curated] == [c < 0 for c in class_of.values()]
    assert all(curated[n] == old for n, c in class_of.items() if c in (old, new))

    again = config_of(tmp_path / "again", str(tmp_path / "once" / "storage"), scenes)
    done = here(["run", again, "--until", "keep"])
    assert done.returncode == 0, done.stderr
    kept = open_run(again).artifact_with("kept_crops")
    by_class = kept.table("kept_crops").read(["class_index"])["class_index"].to_pylist()
    assert max(by_class) == len(rows) - 2
    first = continued.run.artifact_with("kept_crops").table("kept_crops").read(["class_index"])
    assert by_class.count(old) > first["class_index"].to_pylist().count(old)  # and the new ones
    assert len(kept.json("kept")) == len(kept.json("kept_classes")) == len(rows) - 1


@pytest.fixture(scope="module")
def twice(continued: Continued, tmp_path_factory: pytest.TempPathFactory) -> Continued:
    """The continued run goes on itself, with other scenes, once the first run is gone."""
    folder = tmp_path_factory.mktemp("twice")
    write_new_scenes(folder / "more", num_scenes=4, letter="K", seed=5)
    shutil.copytree(continued.run.storage.uri, folder / "earlier")
    stages = {"assign": {"threshold": 0.6}, "renew": {"min_size": 2}}
    config = config_of(folder / "twice", str(folder / "earlier"), folder / "more", **stages)
    done = here(["run", config])
    assert done.returncode == 0, done.stderr
    return Continued(config, open_run(str(folder / "earlier")), done.stdout)


@pytest.mark.thorough
def test_a_continued_run_is_continued(continued: Continued, twice: Continued):
    before, after = table(continued.run), table(twice.run)
    assert after[: len(before)] == before
    names = [row["name"] for row in after]
    assert len(set(names)) == len(names)
    assert f"new {sum(name.startswith('new ') for name in names)}" in names
    sizes = [run.artifact_with("kept").json("kept") for run in (continued.run, twice.run)]
    for old, new in zip(*sizes, strict=False):
        assert new["outputs"] == old["outputs"]
        assert new["size"] >= old["size"]
    first, last = (StoredMethod.read(r.artifact_with("method")) for r in (continued.run, twice.run))
    assert first.weights.record.sha256 == last.weights.record.sha256
    kept = twice.run.artifact_with("kept_crops").table("kept_crops").read(["class_index"])
    made = {row["class_index"] for row in before if row["name"].startswith("new ")}
    assert made <= set(kept["class_index"].to_pylist())


def contents(run: OpenedRun) -> dict[str, dict[str, list[str]]]:
    made = {node: run.artifact(node) for node in run.keys}
    return {
        node: {name: [r.sha256 for r in records] for name, records in a.manifest.files.items()}
        for node, a in made.items()
        if a
    }


@pytest.mark.thorough
def test_killed_and_resumed_it_ends_the_same(continued: Continued, tmp_path: Path):
    storage = tmp_path / "storage"
    overrides = ["--set", f"storage={storage}"]
    assert here(["run", continued.config, *overrides, "--until", "propose"]).returncode == 0
    manifest = next(storage.glob("propose_kept/*/manifest.json"))
    manifest.unlink()  # killed at its very end
    records = sorted(manifest.parent.glob("attempt-*/done/*/*.json"))
    records[0].unlink()  # and before a shard
    done = here(["run", continued.config, *overrides])
    assert done.returncode == 0, done.stderr
    assert contents(open_run(str(storage))) == contents(continued.run)


@pytest.mark.ray
@pytest.mark.thorough
def test_on_ray_it_ends_the_same(continued: Continued, ray_address: str, tmp_path: Path):
    overrides = [
        f"storage={tmp_path / 's'}",
        "compute.runtime=ray",
        f"compute.address={ray_address}",
    ]
    done = here(["run", continued.config, *(t for o in overrides for t in ("--set", o))])
    assert done.returncode == 0, done.stderr
    assert contents(open_run(str(tmp_path / "s"))) == contents(continued.run)
