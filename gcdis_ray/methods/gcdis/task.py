"""Training of the discovery model f_d: two views, momentum encoder, queue, five losses.

A step: each part draws crops and two views of each (:meth:`DiscoveryTask.batch`); the momentum
encoder turns second views into keys and targets, and parts swap them (:meth:`prepare`); the student
learns from first views (:class:`~gcdis_ray.methods.gcdis.model.DiscoveryObjective`); then the
momentum encoder, the queue, cluster mass and headness follow (:meth:`after_step`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gcdis_ray.clustering.prototypes import (
    fit_prototypes,
    semi_supervised_kmeans,
    semi_supervised_linkage,
)
from gcdis_ray.config import TrainingConfig
from gcdis_ray.data.crops.augment import plain_view, random_view, with_mask, wobble
from gcdis_ray.data.crops.crop_store import CropStore
from gcdis_ray.data.crops.sampling import CropSampler
from gcdis_ray.errors import DataError
from gcdis_ray.losses.clustering import sharpened_target
from gcdis_ray.methods.gcdis.config import DiscoveryConfig, ModelConfig
from gcdis_ray.methods.gcdis.model import DiscoveryObjective, build_discovery_model
from gcdis_ray.methods.gcdis.temperature import HeadnessTable, cosine_temperature
from gcdis_ray.methods.hold_out import HoldOut
from gcdis_ray.methods.tables import HOLDOUT_CURVE
from gcdis_ray.models.heads import DiscoveryModel
from gcdis_ray.models.momentum import MomentumEncoder, rising_momentum
from gcdis_ray.models.queue import FeatureQueue
from gcdis_ray.store.artifacts import Table
from gcdis_ray.training.task import Exchange, TrainingTask

_EMBED_ROWS = 256  # crops per forward when prototypes are placed


class DiscoveryTask(TrainingTask):
    """See the module's docstring.

    Args:
        crops: the table ``crops`` (crop_index is its row number).
        num_known, num_classes: known classes, and known plus novel ones.
        snapshot_steps: finished steps after which weights are kept.
        cache_mb: decoded crops kept in memory up to this size; changes no result.
        hold_out: known classes whose labels are withheld; the outputs of the others come first.
        measure_every: finished steps between measurements of ``hold_out``, 0 for none. Changes no
            weight.
    """

    member = "encoder"

    def __init__(
        self,
        *,
        training: TrainingConfig,
        model: ModelConfig,
        discovery: DiscoveryConfig,
        crops: Table,
        num_known: int,
        num_classes: int,
        snapshot_steps: Sequence[int],
        seed: int,
        cache_mb: int = 2000,
        hold_out: HoldOut | None = None,
        measure_every: int = 0,
    ) -> None:
        self.config, self.seed, self._cache_mb = training, seed, cache_mb
        self._model_config, self._discovery = model, discovery
        self._crops, self._num_classes = crops, num_classes
        self._num_known = hold_out.num_visible if hold_out else num_known
        self._hold_out, self._measure_every = hold_out, measure_every if hold_out else 0
        self._curve: list[list[float]] = []  # finished steps, accuracy on withheld classes
        self._snapshot_steps = frozenset(snapshot_steps)
        self._part_size = training.batch_size // training.micro_batches
        self._bf16 = training.precision == "bf16"

    # ------------------------------------------------------------ setup and batches

    def setup(self, device: torch.device) -> nn.Module:
        if self._crops.num_rows == 0:
            raise DataError("no crop to learn from", where="crops")
        discovery, temperature = self._discovery, self._discovery.temperature
        self._store = CropStore(self._crops, discovery.cache_px, self._cache_mb)
        self._labels = labels = self._store.labels
        if self._hold_out is not None:
            given = labels.numpy()
            self._labels = labels = torch.from_numpy(self._hold_out.told(given))
            self._withheld = self._hold_out.sample(given)
        self._sampler = CropSampler(
            labels.numpy(),
            discovery.labeled_share,
            self._part_size,
            self.config.micro_batches,
            self.seed,
        )
        self._epoch_steps = max(1, math.ceil(len(labels) / self.config.batch_size))
        model = build_discovery_model(self._model_config, self._num_classes).to(device)
        if self._bf16:  # convolutions in bf16 are fastest that way
            model = model.to(memory_format=torch.channels_last)
        self._objective = DiscoveryObjective(model, self._model_config, discovery)
        self._teacher = MomentumEncoder(model)
        dim = self._model_config.heads.projection_dim
        size = self._part_size * self.config.micro_batches
        self._queue = FeatureQueue(discovery.queue_size, dim, device, front=size)
        self._headness = HeadnessTable(
            len(labels), temperature.momentum, temperature.minimum, temperature.maximum, device
        )
        self._mass = torch.zeros(self._num_classes, device=device)
        self._device = device
        return self._objective

    def batch(self, step: int, part: int) -> dict[str, Any]:
        rows = self._sampler.crops(step, part)
        images, masks = self._store.get(rows)
        side, augment = self._model_config.encoder.input_px, self._discovery.augment
        seed = np.random.SeedSequence([self.seed, step, part]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(seed) & (2**63 - 1))

        def view() -> tuple[Tensor, Tensor]:  # crops go to the device as bytes, views stay there
            seen, shape = random_view(images, masks, side, augment, generator, self._device)
            return self._input(seen, wobble(shape, augment.mask_wobble, generator)), shape

        first, first_masks = view()
        second, _ = view()
        return dict(
            step=step,
            part=part,
            images=first,
            masks=first_masks,
            second=second,
            labels=self._labels[rows],
            instances=rows,
        )

    def _input(self, images: Tensor, masks: Tensor) -> Tensor:
        return with_mask(images, masks) if self._model_config.encoder.mask_input else images

    # ------------------------------------------------------------ one step

    @torch.no_grad()
    def prepare(self, parts: Sequence[Any], exchange: Exchange) -> Sequence[Any]:
        step, size = int(parts[0]["step"]), self._part_size
        self._local_parts = [int(part["part"]) for part in parts]
        self._objective.seen_headness.clear()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            seen = [self._teacher.module(part["second"]) for part in parts]
        cosines = [out.cosines_NK.float() for out in seen]
        heat = self._target_temperature(step)
        probabilities = [torch.softmax(c / heat, dim=1) for c in cosines]
        self._keys = exchange.rows([out.projections_ND.float() for out in seen])
        self._key_labels = exchange.rows([part["labels"] for part in parts])
        self._key_instances = exchange.rows([part["instances"] for part in parts])
        self._step_mass = exchange.rows(probabilities).sum(dim=0)
        mass = self._kept_mass() + self._step_mass
        num_labeled = (self._key_labels >= 0).sum() / self.config.micro_batches
        queued = self._discovery.negatives == "queue"
        keys, key_labels, key_instances = self._queue.show(
            self._keys, self._key_labels, self._key_instances
        )
        shared = dict(
            num_contrasted=self._queue.num_valid * queued + len(self._keys),
            keys=keys,
            key_labels=key_labels,
            key_instances=key_instances,
            mass=mass,
            num_labeled=num_labeled,
            clusters=float(step >= self._clustering_start()),
        )
        own = torch.arange(size, device=self._device)
        dec = self._discovery.target.kind == "dec"
        return [
            {
                **part,
                **shared,
                "own": own + int(part["part"]) * size,
                "temperatures": self._temperatures(part["instances"], step),
                "targets": sharpened_target(p, mass, self._discovery.target.balance) if dec else p,
            }
            for part, p in zip(parts, probabilities, strict=True)
        ]

    @torch.no_grad()
    def after_step(self, step: int, exchange: Exchange) -> dict[str, float | Tensor]:
        finished = step + 1
        self._teacher.update(self._objective.model, self._momentum(step))
        self._queue.enqueue(self._keys, self._key_labels, self._key_instances)
        self._mass = self._kept_mass() + self._step_mass
        headness = exchange.rows(self._objective.seen_headness)
        self._headness.update(self._key_instances, headness)
        epoch, rest = divmod(finished, self._epoch_steps)
        if rest == 0 and epoch >= self._discovery.temperature.warmup_epochs:
            self._headness.assign()
        if (
            finished == max(1, self._clustering_start())
            and self._discovery.prototypes.start != "random"
        ):
            self._place_prototypes(exchange)
        if self._measure_every and finished % self._measure_every == 0:
            self._measure(finished, exchange)
        share = self._mass / self._mass.sum().clamp(min=1e-12)
        return dict(
            headness=headness.mean(),
            cluster_entropy=torch.special.entr(share).sum(),
            temperature=self._temperatures(self._key_instances, step).mean(),
        )

    def _momentum(self, step: int) -> float:
        start, end = self._discovery.momentum_start, self._discovery.momentum
        return end if start is None else rising_momentum(step / self.config.steps, start, end)

    def _clustering_start(self) -> int:
        """Finished steps before the clustering loss counts."""
        return round(self._discovery.losses.clustering_from * self.config.steps)

    def _kept_mass(self) -> Tensor:
        """Summed probabilities over about the last ``queue_size`` crops, without storing them: a
        running sum that forgets at the queue's rate."""
        return self._mass * max(0.0, 1 - self.config.batch_size / self._discovery.queue_size)

    def _target_temperature(self, step: int) -> float:
        target = self._discovery.target
        span = target.warm_share * self.config.steps
        done = 1.0 if span <= 0 else (step - self._clustering_start()) / span
        done = min(max(done, 0.0), 1.0)
        return target.warm_temperature + (target.temperature - target.warm_temperature) * done

    def _temperatures(self, instances: Tensor, step: int) -> Tensor:
        config = self._discovery.temperature
        if config.mode == "instance":
            return self._headness.temperatures[instances]
        value = config.minimum
        if config.mode == "cosine":
            progress = step / self.config.steps
            value = cosine_temperature(
                progress, config.minimum, config.maximum, config.cosine_periods
            )
        return torch.full(instances.shape, value, device=self._device)

    # ------------------------------------------------------------ prototypes

    def _place_prototypes(self, exchange: Exchange) -> None:
        """Start all prototypes at clusters of the momentum encoder's projections."""
        config = self._discovery.prototypes
        rng = np.random.default_rng([self.seed, 1])
        rows = torch.from_numpy(rng.permutation(len(self._labels))[: config.samples])
        teacher = self._teacher.module
        features, projections = self._spread(rows, exchange, lambda r: self._look(teacher, r)[:2])
        labels = self._labels[rows].to(self._device)
        clusters = self._clusters(projections, labels)
        sums = torch.zeros(self._num_classes, features.shape[1], device=self._device)
        sums.index_add_(0, clusters, features)
        start = F.normalize(sums, dim=1)
        empty = sums.norm(dim=1, keepdim=True) == 0
        start = torch.where(empty, self._teacher.module.classifier.prototypes(), start)
        prototypes = fit_prototypes(
            features, clusters, start, self._discovery.losses.softmax_temperature
        )
        prototypes = exchange.rows([prototypes] * len(self._local_parts))[: self._num_classes]
        self._objective.model.classifier.place(prototypes)
        self._teacher.module.classifier.place(prototypes)
        self._mass = torch.zeros_like(self._mass)  # it counted the earlier prototypes

    def _clusters(self, projections: Tensor, labels: Tensor) -> Tensor:
        config, known, total = self._discovery.prototypes, self._num_known, self._num_classes
        if config.start == "linkage":
            return semi_supervised_linkage(
                projections,
                labels,
                known,
                total,
                min_share=config.min_share,
                labeled_stretch=config.labeled_stretch,
            )
        generator = torch.Generator().manual_seed(self.seed)
        centers = semi_supervised_kmeans(
            projections, labels, known, total, generator, restarts=config.restarts
        )
        return torch.where(labels >= 0, labels, (projections @ centers.T).argmax(dim=1))

    # ------------------------------------------------------------ un-augmented crops

    def _spread(
        self, rows: Tensor, exchange: Exchange, look: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """What ``look`` sees of crops, a row each; parts share the work."""
        chunk = math.ceil(len(rows) / self.config.micro_batches)
        padded = torch.cat([rows, rows[-1:].expand(chunk * self.config.micro_batches - len(rows))])
        found = [look(padded[part * chunk : (part + 1) * chunk]) for part in self._local_parts]
        columns = [list(column) for column in zip(*found, strict=True)]
        return [exchange.rows(column)[: len(rows)] for column in columns]

    def _look(self, model: DiscoveryModel, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features, projections and clusters."""
        features, projections, clusters = [], [], []
        for some in rows.split(_EMBED_ROWS):
            view = plain_view(*self._store.get(some), self._model_config.encoder.input_px)
            found = model(self._input(*view).to(self._device))
            features.append(F.normalize(found.features_NF.float(), dim=1))
            projections.append(found.projections_ND.float())
            clusters.append(found.cosines_NK.argmax(dim=1))
        return torch.cat(features), torch.cat(projections), torch.cat(clusters)

    def _measure(self, finished: int, exchange: Exchange) -> None:
        """One point of the hold-out's curve. By the student, as the assignments at the end: with a
        slow momentum, the momentum encoder of a short run is still what it was long ago."""
        student, (rows, classes) = self._objective.model, self._withheld
        assert self._hold_out is not None
        with _in_eval(student):
            (clusters,) = self._spread(
                torch.from_numpy(rows), exchange, lambda r: self._look(student, r)[2:]
            )
        accuracy, _ = self._hold_out.accuracy(clusters.cpu().numpy(), classes)
        if accuracy is not None:
            self._curve.append([finished, accuracy])

    def measured(self, step: int) -> Mapping[str, float]:
        if self._curve and self._curve[-1][0] == step:
            return {"holdout_accuracy": self._curve[-1][1]}
        return {}

    # ------------------------------------------------------------ what is kept

    def is_snapshot(self, step: int) -> bool:
        return step in self._snapshot_steps

    def snapshot(self) -> dict[str, Tensor]:
        return self._objective.model.state_dict()

    def export(self) -> Mapping[str, Any]:
        every = torch.arange(len(self._labels), device=self._device)
        members: dict[str, Any] = {
            "instance_state": dict(
                headness=self._headness.values,
                temperature=self._temperatures(every, self.config.steps),
            )
        }
        if self._hold_out is not None:
            steps, accuracies = [int(p[0]) for p in self._curve], [p[1] for p in self._curve]
            schema = HOLDOUT_CURVE
            members["holdout_curve"] = pa.table([steps, accuracies], schema=schema)
        return members

    def state(self) -> Mapping[str, Any]:
        return dict(
            teacher=self._teacher.module.state_dict(),
            queue=self._queue.state(),
            headness=self._headness.state(),
            mass=self._mass,
            curve=self._curve,
        )

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._teacher.module.load_state_dict(state["teacher"])
        self._queue.load_state(state["queue"])
        self._headness.load_state(state["headness"])
        self._mass = state["mass"].to(self._device)
        self._curve = [list(point) for point in state["curve"]]


@contextmanager
def _in_eval(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while, each module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
