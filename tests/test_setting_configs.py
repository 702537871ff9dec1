"""The shipped configs of the published settings, on small folders in the official layout."""

from __future__ import annotations

import json
from pathlib import Path

import official_files as official
import pytest
from coco_folder import image_bytes, write_json
from small_run import ROOT

from gcdis_ray.cli import main
from gcdis_ray.data.sets.data_config import DataConfig
from gcdis_ray.data.sets.splits import DataPlan, plan_data
from gcdis_ray.errors import DataError
from gcdis_ray.run.pipeline import load_config
from gcdis_ray.store.s3 import Prefix


def images(folder: Path, names: list[str], height: int = 30, width: int = 40) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_bytes(seed, height, width))


def jpg(folder: str, ids: list[int]) -> list[str]:
    return [f"{folder}/{i:012d}.jpg" for i in ids]


def coco_half_lvis(root: Path) -> None:
    """LVIS train: 1 to 9; COCO has 10 and 11, too, which LVIS has for validation, with 21."""
    (root / "annotations").mkdir(parents=True)
    official.coco(root / "annotations/instances_train2017.json", list(range(1, 12)))
    official.lvis(root / "annotations/lvis_v1_train.json", list(range(1, 10)))
    data = official.lvis(root / "annotations/lvis_v1_val.json", [10, 11, 21])
    data["images"][2]["coco_url"] = f"http://images.cocodataset.org/{jpg('val2017', [21])[0]}"
    write_json(root / "annotations/lvis_v1_val.json", data)
    official.coco_to_synset(root / "annotations/coco_to_synset.json")
    images(root, jpg("train2017", list(range(1, 12))) + jpg("val2017", [21]))


def lvis_visual_genome(root: Path) -> None:
    """Visual Genome's 1 to 7; its 3 and 4 are in LVIS val, as 11 and 12."""
    (root / "coco/annotations").mkdir(parents=True)
    official.lvis(root / "coco/annotations/lvis_v1_train.json", list(range(1, 10)))
    official.lvis(root / "coco/annotations/lvis_v1_val.json", [11, 12, 13], "val2017")
    images(root / "coco", jpg("train2017", list(range(1, 10))) + jpg("val2017", [11, 12, 13]))
    coco_ids = {1: None, 2: 5, 3: 11, 4: 12, 5: None, 6: None, 7: None}
    official.visual_genome(root / "visual_genome", coco_ids)
    names = [f"VG_100K{'_2' * (i % 2)}/{i}.jpg" for i in coco_ids]
    images(root / "visual_genome", names, 60, 80)


def objects365(root: Path) -> None:
    config = load_config(ROOT / "configs/objects365.yaml", []).stages.ingest
    pairs = config.labeled.relabel.names
    (root / "coco/annotations").mkdir(parents=True)
    data = official.coco(root / "coco/annotations/instances_train2017.json", list(range(1, 9)))
    data["categories"] = [{"id": i, "name": name} for i, name in enumerate(pairs, 1)]
    write_json(root / "coco/annotations/instances_train2017.json", data)
    images(root / "coco", jpg("train2017", list(range(1, 9))))
    (root / "objects365").mkdir()
    names = {
        "train": [f"v{1 + i % 2}/patch{i}/objects365_v1_{i:08d}.jpg" for i in range(6)],
        "val": [f"v1/patch{i}/objects365_v1_{i + 90:08d}.jpg" for i in range(3)],
    }
    for split, listed in names.items():
        data = official.objects365(root / f"objects365/zhiyuan_objv2_{split}.json", listed)
        more = sorted(set(pairs.values()) - {"Person", "Sneakers"})
        data["categories"] += [{"id": i, "name": name} for i, name in enumerate(more, 3)]
        write_json(root / f"objects365/zhiyuan_objv2_{split}.json", data)
        images(root / "objects365" / split, [name.partition("/")[2] for name in listed])


MAKERS = {f.__name__: f for f in (coco_half_lvis, lvis_visual_genome, objects365)}


def planned(name: str, root: Path) -> tuple[DataConfig, DataPlan]:
    MAKERS[name](root)
    config = load_config(ROOT / f"configs/{name}.yaml", [f"stages.ingest.root={root}"])
    return config.stages.ingest, plan_data(config.stages.ingest)


def uris(plan: DataPlan, split: str) -> list[str]:
    return sorted(image.uri for image in plan.images[split])


def test_halves_are_complements_of_the_same_size(tmp_path: Path):
    _, plan = planned("coco_half_lvis", tmp_path / "d")
    labeled, unlabeled = uris(plan, "labeled"), uris(plan, "unlabeled")
    assert len(labeled) == 4
    assert sorted(labeled + unlabeled) == jpg("train2017", list(range(1, 10)))
    assert uris(plan, "validation") == jpg("train2017", [10, 11]) + jpg("val2017", [21])
    assert [(c.category_id, c.name) for c in plan.known] == [(2, "cat"), (3, "person")]
    assert [c.category_id for c in plan.sets["validation"].source.categories] == [1, 2, 3, 4]  # pyright: ignore[reportOptionalMemberAccess]


def test_a_published_list_takes_the_place_of_the_hash(tmp_path: Path):
    root = tmp_path / "d"
    config, _ = planned("coco_half_lvis", root)
    write_json(root / "annotations/half.json", {"images": [{"id": i} for i in (2, 3, 5)]})
    listed = {"file": "annotations/half.json", "key": "images.id"}
    data = config.model_dump()
    data["labeled"].update(image_ids=listed, part=None)
    data["unlabeled"].update(except_image_ids=listed, part=None)
    plan = plan_data(type(config)(**data))
    assert uris(plan, "labeled") == jpg("train2017", [2, 3, 5])
    assert uris(plan, "unlabeled") == jpg("train2017", [1, 4, 6, 7, 8, 9])


def test_all_images_as_unlabeled_by_a_second_name(tmp_path: Path):
    root = tmp_path / "d"
    config, _ = planned("coco_half_lvis", root)
    (root / "again").symlink_to(".")
    data = config.model_dump()
    data["unlabeled"].update(images="again", ids="name", part=None)
    with pytest.raises(DataError, match=r"by two names(.|\n)*unlabeled\.shared"):
        plan_data(type(config)(**data))
    data["unlabeled"]["shared"] = True
    plan = plan_data(type(config)(**data))
    assert len(plan.images["unlabeled"]) == 9
    assert len(plan.images["labeled"]) == 4


def test_visual_genome_joins_lvis(tmp_path: Path):
    root = tmp_path / "d"
    config, _ = planned("lvis_visual_genome", root)
    space = {**config.model_dump()["label_space"], "min_images": 2}
    plan = plan_data(type(config)(**{**config.model_dump(), "label_space": space}))
    assert [c.category_id for c in plan.known] == [1, 2, 3, 4]
    validation = plan.sets["validation"]
    assert uris(plan, "validation") == jpg("coco/val2017", [11, 12])
    assert validation.source is not None
    assert [(c.category_id, c.name) for c in validation.source.categories][4:] == [(5, "tree.n.01")]
    found = [row for rows in validation.selection(None).checked() for row in rows]
    assert [row[2] for row in found] == [2, 4, 2, 4, 5, 5]
    assert [row[4] is None for row in found] == [False] * 4 + [True] * 2  # boxes only
    assert not any(row[-1] for row in found)
    assert {u.rpartition("/")[2] for u in uris(plan, "unlabeled")} == {
        f"{i}.jpg" for i in (1, 2, 5, 6, 7)
    }


def test_objects365_patches(tmp_path: Path):
    root = tmp_path / "d"
    config, plan = planned("objects365", root)
    assert len(plan.known) == 80
    assert uris(plan, "unlabeled")[0] == "objects365/train/patch0/objects365_v1_00000000.jpg"
    assert plan.sets["unlabeled"].missing(plan.folder).count == 0
    for path in (root / "objects365/train/patch3").iterdir():
        path.unlink()
    found = plan.sets["unlabeled"].missing(plan.folder)
    assert "patch 3 (1 image)" in found.describe()
    data = config.model_dump()
    data["unlabeled"]["partial"] = True
    assert len(plan_data(type(config)(**data)).images["unlabeled"]) == 5


@pytest.mark.parametrize("name", MAKERS)
def test_four_workers_have_a_part_of_64_crops_each(name: str):
    config = load_config(ROOT / f"configs/{name}.yaml", [])
    training, compute = config.stages.discover.gcdis.training, config.compute
    assert training.batch_size // training.micro_batches == 64
    assert training.micro_batches == compute.workers == 4
    assert (compute.gpus_per_worker, compute.checkpoint_every_s) == (1, 300)
    assert compute.strategy == "ddp"  # resumes on any number of workers
    assert compute.decode_threads > 1


@pytest.mark.parametrize("name", MAKERS)
def test_plan_and_check(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = tmp_path / "d"
    MAKERS[name](root)
    overrides = ["--set", f"stages.ingest.root={root}", "--set", f"storage={tmp_path / 'runs'}"]
    if name == "lvis_visual_genome":
        overrides += ["--set", "stages.ingest.label_space.min_images=1"]
    config = str(ROOT / f"configs/{name}.yaml")
    assert main(["plan", config, *overrides, "--json"]) == 0, capsys.readouterr().err
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert len(stages) == 12
    # such a small folder differs from what is published, and in nothing else
    assert main(["data", "check", config, *overrides]) == 2
    out, err = capsys.readouterr()
    problems = [line for line in err.splitlines() if line.startswith("gcdis:")]
    absent = [line for line in problems if "no object on" in line]  # of 80 classes, of rare ones
    assert len(absent) <= 1
    assert all("published" in line for line in problems if line not in absent)
    assert "sha256" in out


def test_the_same_from_a_bucket(tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch):
    root = tmp_path / "d"
    config, here = planned("lvis_visual_genome", root)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    place = Prefix(f"s3://bucket/{tmp_path.name}", s3_endpoint)
    for path in root.rglob("*.*"):
        place.write(path.relative_to(root).as_posix(), path.read_bytes())
    there = plan_data(type(config)(**{**config.model_dump(), "root": place.location}))
    assert there.images == here.images
    assert there.known == here.known
    for split, chosen in here.sets.items():
        assert there.sets[split].selection(None).digest() == chosen.selection(None).digest()
        assert there.sets[split].missing(there.folder).count == 0
