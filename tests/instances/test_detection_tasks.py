"""Training tasks of proposer and segmenter: pure batches, fixed ratio, fading weights."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scene_tables import TINY, memory_table, memory_tensors, rectangle_scenes

from gcdis_ray.config import ComputeConfig, TrainingConfig
from gcdis_ray.errors import DataError
from gcdis_ray.instances.detector_config import ClassifierConfig
from gcdis_ray.instances.mask_rcnn import build_mask_rcnn
from gcdis_ray.instances.proposing import ProposingTask
from gcdis_ray.instances.segmentation import SegmentationTask
from gcdis_ray.instances.training_images import ImageAugmentConfig, Scenes
from gcdis_ray.training.feed import Feed

CPU = torch.device("cpu")
TRAINING = TrainingConfig.model_validate({"steps": 10, "batch_size": 4, "micro_batches": 2})


@pytest.fixture(scope="module")
def rectangles():
    return rectangle_scenes()


def _proposing(rectangles, **changes):
    task = ProposingTask(
        config=TRAINING,
        seed=0,
        detector=TINY,
        augment=ImageAugmentConfig(),
        cache_mb=16,
        images=rectangles.images,
        instances=rectangles.instances,
    )
    for name, value in changes.items():
        setattr(task, name, value)
    return task


def _segmentation(rectangles, **changes):
    proposals, labels = [[], [], [], []], [[], [], [], []]
    for image_id, truth in rectangles.truth.items():
        if not 300 <= image_id < 400:  # the unlabeled shard
            continue
        for half, row in enumerate(truth):
            shared = ("image_id", "bbox_xyxy", "mask_rle", "height_px", "width_px", "area_px")
            number = 10 * image_id + half
            proposals[2].append(
                {name: row[name] for name in shared}
                | {"proposal_id": number, "objectness": 0.9, "origin": "model"}
            )
            labels[2].append(
                {
                    "crop_index": len(labels[2]),
                    "image_id": image_id,
                    "source_id": number,
                    "cluster_id": 3 + half,
                    "probability": 0.9,
                    "stability": 0.1 + half,
                    "reliability": 0.25 + 0.75 * half,
                }
            )
    arguments = {
        "config": TRAINING,
        "seed": 0,
        "detector": TINY,
        "augment": ImageAugmentConfig(),
        "cache_mb": 16,
        "images": rectangles.images,
        "instances": rectangles.instances,
        "proposals": memory_table("proposals", proposals),
        "pseudo_labels": memory_table("pseudo_labels", labels),
        "proposer": None,
        "num_classes": 5,
        "classifier": ClassifierConfig.model_validate({}),
        "labeled_share": 0.5,
        "decay": "quadratic",
        "scale": 1.0,
        "drop_share": 0.5,
    }
    return SegmentationTask(**(arguments | changes))


def _flat(batch):
    tensors = list(batch["images"])
    return tensors + [t[name] for t in batch["targets"] for name in sorted(t)]


def _equal(one, two):
    pairs = list(zip(_flat(one), _flat(two), strict=True))
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


class TestBatches:
    def test_any_number_of_threads_makes_the_same(self, rectangles):
        """Of images that do not fit the memory given, so that their shards come and go."""
        steps = []
        for threads in (1, 4):
            task = _segmentation(rectangles, cache_mb=0)
            task.setup(CPU)
            compute = ComputeConfig(runtime="local", decode_threads=threads)
            steps.append(list(Feed(task.batch, (0, 1), compute, CPU).steps(0, 12)))
        for (_, alone), (_, together) in zip(*steps, strict=True):
            assert all(_equal(a, b) for a, b in zip(alone, together, strict=True))

    @pytest.mark.parametrize(
        ("precision", "device"), [("bf16", "meta"), ("fp32", "meta"), ("bf16", "cpu")]
    )
    def test_channels_last_for_bf16_on_a_gpu(self, rectangles, precision: str, device: str):
        config = TRAINING.model_copy(update={"precision": precision})
        model = _proposing(rectangles, config=config).setup(torch.device(device))
        last = model.layout == torch.channels_last
        assert last == ((precision, device) == ("bf16", "meta"))

    def test_pure_function_of_seed_step_and_part(self, rectangles):
        task, again = _proposing(rectangles), _proposing(rectangles)
        task.setup(CPU)
        again.setup(CPU)
        late = again.batch(7, 1)  # asked for in another order
        early = again.batch(0, 0)
        assert _equal(task.batch(0, 0), early)
        assert _equal(task.batch(7, 1), late)
        assert not _equal(task.batch(0, 0), task.batch(0, 1))
        other = _proposing(rectangles, seed=1)
        other.setup(CPU)
        assert not _equal(other.batch(0, 0), early)

    def test_a_worker_reads_the_images_of_its_own_parts(self, rectangles, monkeypatch):
        asked, begin = set[int](), Scenes._begin

        def begun(scenes, indices):
            asked.update(indices := list(indices))
            begin(scenes, indices)

        monkeypatch.setattr(Scenes, "_begin", begun)
        task = _proposing(rectangles)
        task.setup(CPU)
        for step in (0, 1):
            task.batch(step, 1)
        drawn = [{task._draw(step, slot)[1] for step in range(6)} for slot in range(4)]
        assert asked == drawn[2] | drawn[3]  # those of four steps more: it reads ahead

    def test_epochs_cover_every_labeled_image(self, rectangles):
        task = _proposing(rectangles)
        task.setup(CPU)
        for epoch in range(2):
            slots = [(3 * epoch + step, slot) for step in range(3) for slot in range(4)]
            assert sorted(task._draw(*slot)[1] for slot in slots) == list(range(12))

    def test_all_classes_become_one(self, rectangles):
        task = _proposing(rectangles)
        task.setup(CPU)
        labels = torch.cat([t["labels"] for t in task.batch(0, 0)["targets"]])
        assert labels.unique().tolist() == [1]

    @pytest.mark.parametrize(("share", "labeled"), [(0.5, 2), (0.25, 1), (1.0, 4), (0.0, 0)])
    def test_ratio_of_streams(self, rectangles, share, labeled):
        task = _segmentation(rectangles, labeled_share=share)
        task.setup(CPU)
        draws = [task._draw(5, slot) for slot in range(4)]
        assert sum(stream == 0 for stream, _ in draws) == labeled
        assert len(set(draws)) == 4

    def test_half_and_half_in_every_part(self, rectangles):
        task = _segmentation(rectangles)
        task.setup(CPU)
        for part in range(2):
            classes = [set((t["labels"] - 1).tolist()) for t in task.batch(0, part)["targets"]]
            assert sorted(c <= {0, 1, 2} for c in classes) == [False, True]

    def test_no_pseudo_labels_leaves_the_labeled_stream(self, rectangles):
        empty = memory_table("pseudo_labels", [[], [], [], []])
        task = _segmentation(rectangles, pseudo_labels=empty)
        task.setup(CPU)
        assert {task._draw(0, slot)[0] for slot in range(4)} == {0}

    def test_nothing_labeled(self, rectangles):
        with pytest.raises(DataError, match="no labeled image"):
            _proposing(rectangles, instances=memory_table("instances", [[]])).setup(CPU)


class TestWeights:
    def _weights(self, task, step):
        task.setup(CPU)
        targets = [t for part in range(2) for t in task.batch(step, part)["targets"]]
        known = torch.cat([t["weights"] for t in targets if t["labels"].max() <= 3])
        pseudo = torch.stack([t["weights"] for t in targets if t["labels"].max() > 3])
        return known, pseudo

    def test_fade_with_time_and_doubt(self, rectangles):
        known, pseudo = self._weights(_segmentation(rectangles), 0)
        assert known.unique().tolist() == pseudo.unique().tolist() == [1.0]
        known, pseudo = self._weights(_segmentation(rectangles), 9)
        assert known.unique().tolist() == [1.0]
        doubtful, trusted = 1 - (0.9 - 0.25) ** 2, 1.0
        assert np.allclose(pseudo, [[doubtful, trusted]] * 2)

    def test_modes(self, rectangles):
        _, pseudo = self._weights(_segmentation(rectangles, decay="none", scale=0.5), 9)
        assert pseudo.unique().tolist() == [0.5]
        _, pseudo = self._weights(_segmentation(rectangles, decay="classwise_cut"), 0)
        assert np.allclose(pseudo, [[0.0, 1.0]] * 2)
        _, pseudo = self._weights(_segmentation(rectangles, decay="global_cut"), 0)
        assert np.allclose(pseudo, [[0.0, 1.0]] * 2)  # of all, the half that is less stable
        _, pseudo = self._weights(_segmentation(rectangles, decay="quadratic_global"), 9)
        low, high = 3.5 / 12, 9.5 / 12  # mean ranks of six equal stabilities each
        assert np.allclose(pseudo, [[1 - (0.9 - low) ** 2, 1 - (0.9 - high) ** 2]] * 2)


class TestModel:
    def test_starts_from_the_proposer(self, rectangles):
        proposer = build_mask_rcnn(TINY, 1, seed=5).state_dict()
        task = _segmentation(rectangles, proposer=memory_tensors(proposer))
        state = task.setup(CPU).state_dict()
        assert torch.equal(
            state["rpn.head.cls_logits.weight"], proposer["rpn.head.cls_logits.weight"]
        )
        assert state["heads.box_predictor.classifier.weight"].shape[0] == 6

    def test_tasks_travel(self, rectangles):
        task = pickle.loads(pickle.dumps(_proposing(rectangles)))  # noqa: S301
        task.setup(CPU)
        assert len(task.batch(0, 0)["images"]) == 2
        assert set(task.snapshot()) == set(build_mask_rcnn(TINY, 1, 0).state_dict())
