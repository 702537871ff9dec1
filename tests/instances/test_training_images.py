"""Training images: annotations joined, order, memory, and changes that keep masks on objects."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from scene_tables import memory_table, rectangle_scenes
from tables import SCHEMAS

from gcdis_ray.data.images.image_files import ImageFiles
from gcdis_ray.errors import DataError
from gcdis_ray.instances import training_images as module
from gcdis_ray.instances.training_images import (
    ImageAugmentConfig,
    Scenes,
    read_instances,
    read_pseudo_labels,
)
from gcdis_ray.masks.coco_rle import bbox_xyxy, decode
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.store.artifacts import Table
from gcdis_ray.store.meter import metering
from gcdis_ray.store.source import source_folder
from gcdis_ray.store.storage import ArtifactOpener, LocalStorage

STILL = ImageAugmentConfig(flip=False, scale_jitter=0, color_jitter=0)


@pytest.fixture(scope="module")
def rectangles():
    return rectangle_scenes()


@pytest.fixture
def labeled(rectangles):
    return Scenes(rectangles.images, read_instances(rectangles.instances), 1 << 20)


def _tight(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


class TestAnnotations:
    def test_instances_by_image(self, rectangles):
        found = read_instances(rectangles.instances)
        assert sorted(found) == sorted(i for i in rectangles.truth if i < 300)  # labeled shards
        for image_id, objects in found.items():
            truth = rectangles.truth[image_id]
            assert objects.boxes_xyxy.tolist() == [t["bbox_xyxy"] for t in truth]
            assert objects.class_index.tolist() == [t["class_index"] for t in truth]
            assert objects.rles == tuple(t["mask_rle"] for t in truth)
            assert objects.rank.tolist() == [1.0, 1.0]

    def test_crowds_are_areas_not_objects(self, rectangles):
        rows = [dict(row) for row in rectangles.truth[100]]
        rows[0]["iscrowd"] = True
        alone = [{**rectangles.truth[101][0], "iscrowd": True}]
        found = read_instances(memory_table("instances", [rows + alone]))
        assert list(found) == [100]
        assert found[100].boxes_xyxy.tolist() == [rows[1]["bbox_xyxy"]]
        assert found[100].crowds_xyxy.tolist() == [rows[0]["bbox_xyxy"]]

    def test_pseudo_labels_take_their_proposals_masks(self, rectangles):
        truth = rectangles.truth[300]
        proposals = [[], [_proposal(7, truth[0]), _proposal(9, truth[1])]]
        labels = [[], [_pseudo(300, 9, 5, 0.25), _pseudo(300, 7, 1, 0.75)]]
        found = read_pseudo_labels(
            memory_table("pseudo_labels", labels),
            memory_table("proposals", proposals),
        )
        assert found[300].class_index.tolist() == [5, 1]
        assert found[300].rles == (truth[1]["mask_rle"], truth[0]["mask_rle"])
        assert found[300].rank.tolist() == [0.25, 0.75]
        assert found[300].global_rank.tolist() == [0.5, 1.0]

    def test_pseudo_label_of_a_missing_proposal(self, rectangles):
        proposals = memory_table("proposals", [[_proposal(7, rectangles.truth[300][0])]])
        labels = memory_table("pseudo_labels", [[_pseudo(300, 8, 0, 0.5)]])
        with pytest.raises(DataError, match="proposal 8"):
            read_pseudo_labels(labels, proposals)


class TestOrder:
    def test_every_image_once_and_another_way_each_epoch(self, labeled):
        first, second = labeled.order(0, 0, 0), labeled.order(0, 0, 1)
        assert sorted(first) == sorted(second) == list(range(12))
        assert first.tolist() != second.tolist()
        assert first.tolist() == labeled.order(0, 0, 0).tolist()
        assert first.tolist() != labeled.order(1, 0, 0).tolist()

    def test_few_shards_at_a_time(self, monkeypatch):
        monkeypatch.setattr(module, "_SHUFFLED_SHARDS", 2)
        many = rectangle_scenes(["labeled"] * 6, per_shard=4)
        scenes = Scenes(many.images, read_instances(many.instances), 1 << 20)
        shards = scenes.order(0, 0, 0) // 4
        windows = [set(shards[i : i + 8].tolist()) for i in range(0, 24, 8)]
        assert [len(window) for window in windows] == [2, 2, 2]


class TestMemory:
    def test_same_pixels_whatever_the_memory(self, rectangles, labeled):
        objects = read_instances(rectangles.instances)
        tight = Scenes(rectangles.images, objects, 1000)
        for index in (0, 11, 3, 8, 0):
            assert np.array_equal(tight.image(index), labeled.image(index))
        assert len(tight._files) == 1
        assert not tight._decoded
        assert tight._reading.keys().isdisjoint(tight._files)

    @pytest.mark.parametrize("store", ["bytes", "uri"])
    def test_only_the_files_asked_for_are_read(self, rectangles, tmp_path, store):
        images, source = _stored(rectangles, tmp_path, store)
        scenes = Scenes(images, read_instances(rectangles.instances), 1 << 20, source)
        with metering() as known:
            scenes.image(5)
            scenes.image(6)  # of the other shard
        with metering() as meter:
            scenes.ahead([1, 8, 3, 1])
            again = [scenes.image(index) for index in (8, 1, 5)]
        whole = Scenes(rectangles.images, read_instances(rectangles.instances), 1 << 20)
        for index, pixels in zip((8, 1, 5), again, strict=True):
            assert np.array_equal(pixels, whole.image(index))
        sizes = [len(data) for data in rectangles.images.read(["bytes"])["bytes"].to_pylist()]
        scenes.image(3)  # read ahead
        assert meter.read_bytes == sizes[1] + sizes[3] + sizes[8]
        assert known.read_bytes > sizes[5] + sizes[6]

    def test_images_without_files(self, rectangles):
        rows = [{**row, "bytes": None} for row in rectangles.images.shard(0).to_pylist()]
        scenes = Scenes(
            memory_table("images", [rows]), read_instances(rectangles.instances), 1 << 20
        )
        with pytest.raises(DataError, match="neither holds the image files"):
            scenes.image(0)


class TestSample:
    def test_still_image_is_the_file(self, labeled):
        sample = labeled.sample(2, (64, 64), STILL, np.random.default_rng(0))
        objects = labeled.objects(2)
        assert np.array_equal(sample.image, labeled.image(2))
        assert np.array_equal(sample.boxes_xyxy, objects.boxes_xyxy)
        assert np.array_equal(sample.masks[0].astype(bool), decode(objects.rles[0], 64, 64))
        assert sample.mask_scale == (1.0, 1.0)

    def test_masks_stay_on_boxes(self, labeled):
        augment = ImageAugmentConfig(flip=True, scale_jitter=0.3, color_jitter=0.3)
        mirrored = 0
        for seed in range(12):
            sample = labeled.sample(1, (80, 200), augment, np.random.default_rng(seed))
            scale = np.array(sample.mask_scale * 2)
            for box, mask in zip(sample.boxes_xyxy, sample.masks, strict=True):
                assert _tight(mask) == pytest.approx((box * scale).tolist(), abs=1e-3)
            original = bbox_xyxy(labeled.objects(1).rles[0], 64, 64)
            mirrored += _tight(sample.masks[0]) != list(original)
            x0, y0, x1, y1 = sample.boxes_xyxy[0].round().astype(int)
            inside = sample.image[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].reshape(-1, 3)
            assert inside.std(axis=0).max() < 8  # one colour: the box lies on the rectangle
        assert 0 < mirrored < 12

    def test_follows_from_the_generator(self, labeled):
        augment = ImageAugmentConfig()
        one = labeled.sample(0, (64, 64), augment, np.random.default_rng(5))
        two = labeled.sample(0, (64, 64), augment, np.random.default_rng(5))
        assert np.array_equal(one.image, two.image)

    def test_object_without_mask(self, rectangles):
        rows = [{**rectangles.truth[100][0], "mask_rle": None}]
        scenes = Scenes(
            rectangles.images, read_instances(memory_table("instances", [rows])), 1 << 20
        )
        sample = scenes.sample(0, (64, 64), STILL, np.random.default_rng(0))
        assert sample.has_mask.tolist() == [False]
        assert not sample.masks.any()


def _stored(rectangles, folder, store):
    """The images on disk: files in the table, or beside it."""
    attempt, tables = Attempt(LocalStorage(str(folder)), "ingest/k", "attempt-1", SCHEMAS), []
    for shard in rectangles.images.iter_shards():
        rows = shard.to_pylist()
        for row in rows:
            row["sha256"] = hashlib.sha256(row["bytes"]).hexdigest()
            if store == "uri":
                (folder / row["uri"]).write_bytes(row["bytes"])
                row["bytes"] = None
        tables.append(pa.Table.from_pylist(rows, shard.schema))
    records = [attempt.table("images", table, part) for part, table in enumerate(tables)]
    assert all((record.index is None) == (store == "uri") for record in records)
    opener = ArtifactOpener(attempt.storage, attempt.base, SCHEMAS)
    source = ImageFiles(source_folder(str(folder)) if store == "uri" else None)
    return Table("images", tuple(records), opener), source


def _proposal(proposal_id, truth):
    shared = ("image_id", "bbox_xyxy", "mask_rle", "height_px", "width_px", "area_px")
    row = {name: truth[name] for name in shared}
    return {**row, "proposal_id": proposal_id, "objectness": 0.9, "origin": "model"}


def _pseudo(image_id, source_id, cluster_id, reliability):
    return {
        "crop_index": source_id,
        "image_id": image_id,
        "source_id": source_id,
        "cluster_id": cluster_id,
        "probability": 0.9,
        "stability": reliability,
        "reliability": reliability,
    }
