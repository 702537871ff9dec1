"""Walks a recipe: which artifacts exist, which are missing and why, and makes the missing ones.

The one rule: a stage's key is a function of its code version, config, seed, inputs' keys and the
data it reads from outside. A manifest under that key means there is nothing to do.
"""

from __future__ import annotations

import importlib
import pkgutil
import platform
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version as package_version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import gcdis_ray
from gcdis_ray.config import (
    RunConfig,
    StageConfig,
    apply_overrides,
    read_yaml,
    run_config_model,
    validate,
)
from gcdis_ray.errors import ConfigError
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.base import Runtime
from gcdis_ray.store.artifacts import Artifact, Manifest, Size, artifact_key
from gcdis_ray.store.meter import metering
from gcdis_ray.store.storage import Storage, commit, open_artifact, open_storage, read_manifest
from gcdis_ray.training.plan import Progress

SEALED = "ground_truth"
MAY_OPEN_SEALED = frozenset({"evaluate"})


class StageModule(Protocol):
    """What a file in ``gcdis_ray/stages`` holds. ``source(config, show)``, the fingerprint of
    data it reads from outside, is optional; it may tell ``show`` its :class:`Progress`."""

    __name__: str
    VERSION: int
    TAKES: tuple[str, ...]
    SEEDED: bool
    Config: type[StageConfig]

    def forecast(self, config: Any, inputs: Mapping[str, Size]) -> Size: ...
    def run(self, inputs: Mapping[str, Artifact], config: Any, work: Any) -> None: ...


@dataclass(frozen=True)
class Node:
    """A stage in a run: its config, and the key its artifact has or will have."""

    name: str
    stage: StageModule
    config: StageConfig
    inputs: Mapping[str, str]  # stage name -> key
    source: str | None
    seed: int | None
    key: str


@dataclass(frozen=True)
class Event:
    """Something people want to see while a run goes on."""

    stage: str
    kind: str  # cached | start | progress | done
    manifest: Manifest | None = None
    progress: Progress | None = None
    adopted: int = 0
    reason: str = ""


def recipe_names() -> list[str]:
    import gcdis_ray.recipes as recipes

    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__))


def load_recipe(name: str) -> dict[str, StageModule]:
    """Stage name -> stage module, in order, checked: inputs come earlier, sealed data stays so."""
    if name not in recipe_names():
        raise ConfigError(
            f"unknown recipe {name!r}", where="recipe", fix=f"use one of {recipe_names()}"
        )
    stages: dict[str, StageModule] = {}
    for module in importlib.import_module(f"gcdis_ray.recipes.{name}").STAGES:
        stage = module.__name__.rsplit(".", 1)[-1]
        unknown = set(module.TAKES) - set(stages)
        if unknown:
            raise ConfigError(f"takes {sorted(unknown)} before they exist", where=f"stage {stage}")
        if SEALED in module.TAKES and stage not in MAY_OPEN_SEALED:
            raise ConfigError("may not take the sealed ground truth", where=f"stage {stage}")
        stages[stage] = module
    return stages


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A config file with overrides, validated against its recipe."""
    data = apply_overrides(read_yaml(path), overrides)
    data.setdefault("name", Path(path).stem)
    return make_config(data, where=str(path))


def make_config(data: Mapping[str, Any], where: str) -> RunConfig:
    """A config from plain data, validated against its recipe."""
    return validate(_config_model(str(data.get("recipe", "gcdis"))), data, where=where)


@lru_cache(maxsize=16)
def _config_model(recipe: str) -> type[RunConfig]:
    stages = load_recipe(recipe)
    return run_config_model({n: m.Config for n, m in stages.items() if n != SEALED})


class Pipeline:
    """A config's graph over its storage."""

    def __init__(
        self,
        config: RunConfig,
        *,
        sources: Mapping[str, str | None] | None = None,
        reseed: tuple[str, int] | None = None,
        show: Callable[[Event], None] = lambda event: None,
    ) -> None:
        """Args:
        sources: fingerprints of outside data by stage, where they are known already.
        reseed: a stage, and the seed that it and all later ones take instead of the config's.
        show: is told how far fingerprints are: large data takes a while.
        """
        self.config = config
        self._sources, self._reseed, self._show = sources or {}, reseed, show
        self.storage: Storage = open_storage(config.storage, config.storage_endpoint)
        self.nodes: dict[str, Node] = {}
        for name, stage in load_recipe(config.recipe).items():
            self.nodes[name] = self._node(name, stage)

    def _node(self, name: str, stage: StageModule) -> Node:
        # Ground truth is the other half of ingest: it reads the same data set by the same config.
        config: StageConfig = getattr(self.config.stages, "ingest" if name == SEALED else name)
        inputs = {take: self.nodes[take].key for take in stage.TAKES}
        seed = self.config.seed
        if self._reseed and (name == self._reseed[0] or self._reseed[0] in self.nodes):
            seed = self._reseed[1]
        seed = seed if stage.SEEDED else None
        source = self._sources.get(name)
        if name not in self._sources and (fingerprint := getattr(stage, "source", None)):
            source = fingerprint(config, lambda p: self._show(Event(name, "progress", progress=p)))
        key = artifact_key(
            name, stage.VERSION, config.key_fields(), inputs, seed=seed, source=source
        )
        return Node(name, stage, config, MappingProxyType(inputs), source, seed, key)

    def manifest(self, name: str) -> Manifest | None:
        return read_manifest(self.storage, name, self.nodes[name].key)

    def artifacts(self) -> dict[str, Artifact]:
        """Every committed artifact of this run."""
        found = {name: self.manifest(name) for name in self.nodes}
        return {name: open_artifact(self.storage, m) for name, m in found.items() if m}

    def newest(self, name: str) -> Manifest | None:
        """The artifact of a stage that was committed last, under whatever key."""
        keys = self.storage.folders(name)
        earlier = [m for key in keys if (m := read_manifest(self.storage, name, key))]
        return max(earlier, key=lambda m: m.created, default=None)

    def why(self, name: str) -> str:
        """Why a stage has to run: what differs from the newest artifact of that stage."""
        node = self.nodes[name]
        if node.key in self.storage.folders(name):
            return "interrupted, will continue"
        last = self.newest(name)
        if last is None:
            return "never run"
        config = node.config.key_fields()
        changed = [f"{k} changed" for k in sorted(config) if last.config.get(k) != config[k]]
        changed += [f"{k} differs" for k, v in node.inputs.items() if last.inputs.get(k) != v]
        if last.version != node.stage.VERSION:
            changed.append(f"code version {last.version} -> {node.stage.VERSION}")
        if last.seed != node.seed:
            changed.append(f"seed {last.seed} -> {node.seed}")
        if last.source != node.source:
            changed.append("source data changed")
        return ", ".join(changed) or "config fields removed"

    def selected(self, start: str | None, until: str | None) -> list[str]:
        """Stage names from ``start`` to ``until``, both included."""
        names = list(self.nodes)
        for flag, value in (("--from", start), ("--until", until)):
            if value is not None and value not in names:
                raise ConfigError(f"no stage {value!r}", where=flag, fix=f"one of {names}")
        first = names.index(start) if start else 0
        last = names.index(until) if until else len(names) - 1
        if last < first:
            raise ConfigError(
                f"{until} comes before {start}", where="--until", fix=f"the order is {names}"
            )
        missing = [name for name in names[:first] if self.manifest(name) is None]
        if missing:
            raise ConfigError(
                f"{', '.join(missing)} must be run first",
                where=f"--from {start}",
                fix="omit --from",
            )
        return names[first : last + 1]

    def run(
        self,
        runtime: Callable[[], Runtime],
        show: Callable[[Event], None],
        start: str | None = None,
        until: str | None = None,
    ) -> dict[str, Manifest]:
        """Make every missing artifact, in order. Finished ones are left alone."""
        done: dict[str, Manifest] = {}
        for name in self.selected(start, until):
            manifest = self.manifest(name)
            if manifest:
                show(Event(name, "cached", manifest))
            else:
                show(Event(name, "start", reason=self.why(name)))
                manifest = self._produce(self.nodes[name], runtime, show)
            done[name] = manifest
        return done

    def _produce(
        self, node: Node, runtime: Callable[[], Runtime], show: Callable[[Event], None]
    ) -> Manifest:
        attempt = Attempt(
            self.storage, f"{node.name}/{node.key}", f"attempt-{uuid.uuid4().hex[:12]}"
        )
        work = StageWork(
            attempt,
            runtime,
            self.config.compute,
            node.seed if node.seed is not None else 0,
            lambda p: show(Event(node.name, "progress", progress=p)),
        )
        inputs = {}
        for name in node.stage.TAKES:
            manifest = self.manifest(name)
            if manifest is None:
                raise ConfigError(f"{name} has not been run", where=f"stage {node.name}")
            inputs[name] = open_artifact(self.storage, manifest)
        began = time.perf_counter()
        try:
            with metering() as meter:
                node.stage.run(MappingProxyType(inputs), node.config, work)
        finally:
            work.discard_spools()
        manifest = commit(
            self.storage,
            Manifest(
                stage=node.name,
                key=node.key,
                version=node.stage.VERSION,
                config=node.config.key_fields(),
                inputs=dict(node.inputs),
                seed=node.seed,
                source=node.source,
                files=work.files,
                counts=dict(work.counts),
                timings_s={"wall": round(time.perf_counter() - began, 3)},
                versions=_versions(),
                io=meter.amounts(),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )
        show(Event(node.name, "done", manifest, adopted=work.adopted))
        return manifest


def _versions() -> dict[str, str]:
    ours = {"gcdis_ray": gcdis_ray.__version__, "python": platform.python_version()}
    names = ("ray", "torch", "torchvision", "numpy", "pyarrow", "pycocotools", "deepspeed")
    return ours | {name: package_version(name) for name in names}


def iter_status(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """One entry per stage: name, key, state (done | interrupted | missing), uri, seconds, rows,
    bytes, and bytes read and written in making it."""
    for name, node in pipeline.nodes.items():
        manifest = pipeline.manifest(name)
        state = "done" if manifest else "missing"
        if not manifest and node.key in pipeline.storage.folders(name):
            state = "interrupted"
        size = manifest.size if manifest else None
        yield dict(
            name=name,
            key=node.key,
            state=state,
            uri=f"{pipeline.storage.uri}/{name}/{node.key}",
            seconds=manifest.timings_s.get("wall") if manifest else None,
            rows=size.rows if size else None,
            bytes=size.bytes if size else None,
            read_bytes=manifest.io.get("read_bytes") if manifest else None,
            written_bytes=manifest.io.get("written_bytes") if manifest else None,
        )
