"""Walks a recipe: which artifacts exist, which are missing and why, and makes the missing ones.

The one rule: a stage's key is a function of its code version, config, seed, inputs' keys and the
data it reads from outside. A manifest under that key means there is nothing to do.
"""

from __future__ import annotations

import platform
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as package_version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gcdis_ray
from gcdis_ray.config import RunConfig, StageConfig, apply_overrides, read_yaml
from gcdis_ray.curating.acts import Act, standing
from gcdis_ray.curating.log import read_log
from gcdis_ray.curating.naming import class_names
from gcdis_ray.errors import ArtifactError, ConfigError, CurationError
from gcdis_ray.run.attempt import Attempt
from gcdis_ray.run.graph import Wired, load_recipe, make_config
from gcdis_ray.run.underway import underway
from gcdis_ray.run.work import StageWork
from gcdis_ray.runtime.base import Runtime
from gcdis_ray.stages.stage import Stage, offered
from gcdis_ray.store.artifacts import Artifact, Manifest, artifact_key, canonical_json
from gcdis_ray.store.members import Inputs, declared, need, schemas_of
from gcdis_ray.store.meter import metering
from gcdis_ray.store.storage import Storage, commit, open_artifact, open_storage, read_manifest
from gcdis_ray.training.plan import Progress

if TYPE_CHECKING:
    from gcdis_ray.run.opened import OpenedRun


@dataclass(frozen=True)
class RunNode:
    """A node of the recipe in a run: its config, and the key its artifact has or will have."""

    name: str
    wired: Wired
    config: StageConfig
    inputs: Mapping[str, str]  # member -> key of the artifact that it lies in
    source: str | None
    seed: int | None
    key: str

    @property
    def stage(self) -> Stage:
        return self.wired.node.stage

    @property
    def takes(self) -> Mapping[str, str]:
        """Member -> name of the node that gives it."""
        return self.wired.takes

    @property
    def takes_from(self) -> list[str]:
        """Names of the nodes that give what it takes."""
        return list(dict.fromkeys(self.takes.values()))

    @property
    def base(self) -> str:
        """Folder of its artifact in the storage."""
        return f"{self.stage.ID}/{self.key}"


@dataclass(frozen=True)
class Event:
    """Something people want to see while a run goes on."""

    stage: str  # name of the node
    kind: str  # cached | start | progress | done
    manifest: Manifest | None = None
    progress: Progress | None = None
    adopted: int = 0
    reason: str = ""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A config file with overrides, validated against its recipe."""
    from gcdis_ray.run.continuing import settled  # which opens runs, by what is here

    data = apply_overrides(read_yaml(path), overrides)
    data.setdefault("name", Path(path).stem)
    return make_config(settled(data, str(path)), where=str(path))


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
        sources: fingerprints of outside data by node, where they are known already.
        reseed: a node, and the seed that it and all later ones take instead of the config's.
        show: is told how far fingerprints are: large data takes a while.
        """
        self.config = config
        self._sources, self._reseed, self._show = sources or {}, reseed, show
        self.storage: Storage = open_storage(config.storage, config.storage_endpoint)
        self.acts: Sequence[Act] = ()  # of people, on the crops of this run
        self._unread: tuple[str, CurationError] | None = None  # first node that would follow them
        self.earlier = self._opened_earlier()
        self.nodes: dict[str, RunNode] = {}
        for name, wired in load_recipe(config.recipe).items():
            self.nodes[name] = self._node(name, wired)

    def _opened_earlier(self) -> OpenedRun | None:
        """The run that this one continues, if it does."""
        if self.config.continue_from is None:
            return None
        from gcdis_ray.run.opened import open_run

        return open_run(self.config.continue_from)

    def _taken_over(self, stage: Stage) -> dict[str, Artifact]:
        """Member -> the artifact of the earlier run that it lies in, of those the stage takes.

        Raises:
            ConfigError: there is no such run, or it has not come so far.
        """
        wanted = [need(taken) for taken in getattr(stage, "EARLIER", ())]
        if wanted and self.earlier is None:
            raise ConfigError(
                f"recipe {self.config.recipe} goes on from an earlier run, and none is named",
                where="continue_from",
                fix="name its config file or its storage",
            )
        earlier = self.earlier
        return {
            want.member: earlier.artifact_with(want.member)
            for want in wanted
            if earlier and (not want.optional or earlier.has(want.member))
        }

    def _node(self, name: str, wired: Wired) -> RunNode:
        stage = wired.node.stage
        config: StageConfig = getattr(self.config.stages, wired.config_name)
        inputs = {member: self.nodes[giver].key for member, giver in wired.takes.items()}
        seed = self.config.seed
        if self._reseed and (name == self._reseed[0] or self._reseed[0] in self.nodes):
            seed = self._reseed[1]
        seed = seed if stage.SEEDED else None
        source = self._sources.get(name)
        if name not in self._sources and (fingerprint := offered(stage, "source")):
            source = fingerprint(config, lambda p: self._show(Event(name, "progress", progress=p)))
        if complete := offered(stage, "decided"):
            try:
                config = complete(config, self._decisions(inputs["crops"]))
            except CurationError as error:  # of no matter to who wants earlier nodes alone
                self._unread = self._unread or (name, error)
                source = "decisions that cannot be read"
        if (complete := offered(stage, "named")) and self.earlier:
            config = complete(config, class_names(self.earlier))
        if earlier := self._taken_over(stage):
            source = canonical_json({member: found.key for member, found in earlier.items()})
        key = artifact_key(
            stage.ID, stage.VERSION, config.key_fields(), inputs, seed=seed, source=source
        )
        return RunNode(name, wired, config, MappingProxyType(inputs), source, seed, key)

    def _decisions(self, crops_key: str) -> Sequence[Act]:
        """What people decided of these crops, read once: a recipe has crops of one kind."""
        if not self.acts:
            acts = read_log(self.storage, crops_key)
            standing(acts)  # whether it can be followed
            self.acts = acts
        return self.acts

    def need_decisions(self, until: str | None = None) -> None:
        """Refuse to go on with a log of decisions that cannot be read.

        Args:
            until: nothing after this node matters.

        Raises:
            CurationError: a node to this one would follow it.
        """
        if self._unread is None:
            return
        first, error = self._unread
        names = list(self.nodes)
        if until not in names or names.index(until) >= names.index(first):
            raise error

    def manifest(self, name: str) -> Manifest | None:
        node = self.nodes[name]
        return read_manifest(self.storage, node.stage.ID, node.key)

    def artifact(self, name: str) -> Artifact | None:
        """The artifact of a node, if it is committed."""
        manifest = self.manifest(name)
        schemas = schemas_of(self.nodes[name].stage.GIVES)
        return open_artifact(self.storage, manifest, schemas) if manifest else None

    def artifacts(self) -> dict[str, Artifact]:
        """Every committed artifact of this run, by node."""
        found = {name: self.artifact(name) for name in self.nodes}
        return {name: artifact for name, artifact in found.items() if artifact}

    def giver(self, member: str) -> str | None:
        """The last node that gives a member, made or not."""
        names = (n for n in reversed(self.nodes) if declared(self.nodes[n].stage.GIVES, member))
        return next(names, None)

    def newest(self, name: str) -> Manifest | None:
        """The artifact of a node that was committed last, under whatever key. Where a recipe has
        several nodes of one stage, those of the node itself go first."""
        stage = self.nodes[name].stage.ID
        keys = self.storage.folders(stage)
        earlier = [m for key in keys if (m := read_manifest(self.storage, stage, key))]
        return max(earlier, key=lambda m: (m.node == name, m.created), default=None)

    def why(self, name: str) -> str:
        """Why a stage has to run: what differs from the newest artifact of that stage."""
        node = self.nodes[name]
        if node.key in self.storage.folders(node.stage.ID):
            return "interrupted, will continue"
        last = self.newest(name)
        if last is None:
            return "never run"
        config = node.config.key_fields()
        changed = [f"{k} changed" for k in sorted(config) if last.config.get(k) != config[k]]
        givers = [node.takes[k] for k, v in node.inputs.items() if last.inputs.get(k) != v]
        changed += [f"{giver} differs" for giver in dict.fromkeys(givers)]
        if last.version != node.stage.VERSION:
            changed.append(f"code version {last.version} -> {node.stage.VERSION}")
        if last.seed != node.seed:
            changed.append(f"seed {last.seed} -> {node.seed}")
        if last.source != node.source:
            changed.append("source data changed")
        return ", ".join(changed) or "config fields removed"

    def selected(self, start: str | None, until: str | None) -> list[str]:
        """Names of nodes from ``start`` to ``until``, both included."""
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
        self.need_decisions(until)
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
        self, node: RunNode, runtime: Callable[[], Runtime], show: Callable[[Event], None]
    ) -> Manifest:
        attempt = Attempt(
            self.storage,
            node.base,
            f"attempt-{uuid.uuid4().hex[:12]}",
            schemas_of(node.stage.GIVES),
        )
        work = StageWork(
            attempt,
            runtime,
            self.config.compute,
            node.seed if node.seed is not None else 0,
            lambda p: show(Event(node.name, "progress", progress=p)),
        )
        inputs = self.inputs(node.name)
        began = time.perf_counter()
        try:
            with metering() as meter:
                node.stage.run(inputs, node.config, work)
        finally:
            work.discard_spools()
        _check_given(node, work)
        manifest = commit(
            self.storage,
            Manifest(
                stage=node.stage.ID,
                node=node.name,
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
                pace=work.pace,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )
        show(Event(node.name, "done", manifest, adopted=work.adopted))
        return manifest

    def inputs(self, name: str, members: Collection[str] | None = None) -> Inputs:
        """What a node may read.

        Args:
            members: those of them that are asked for; None: all.

        Raises:
            ConfigError: a node that gives one of them has not been run.
        """
        node, artifacts = self.nodes[name], dict[str, Artifact]()
        takes = {m: giver for m, giver in node.takes.items() if members is None or m in members}
        for giver in dict.fromkeys(takes.values()):
            artifact = self.artifact(giver)
            if artifact is None:
                raise ConfigError(f"{giver} has not been run", where=f"stage {name}")
            artifacts[giver] = artifact
        found = {member: artifacts[giver] for member, giver in takes.items()}
        wanted = [*node.wired.needs, *map(need, getattr(node.stage, "EARLIER", ()))]
        return Inputs(
            found | self._taken_over(node.stage), (want.member for want in wanted if want.whole)
        )


def _check_given(node: RunNode, work: StageWork) -> None:
    """A stage gives what it says: all that is not optional, and nothing else."""
    gives = node.stage.GIVES
    strange = [member for member in work.files if not declared(gives, member)]
    absent = [m.name for m in gives if not m.optional and not any(map(m.names, work.files))]
    if strange or absent:
        raise ArtifactError(
            f"gave {strange} that it does not declare, and not {absent} that it does",
            where=f"stage {node.name}",
        )


def _versions() -> dict[str, str]:
    ours = {"gcdis_ray": gcdis_ray.__version__, "python": platform.python_version()}
    names = ("ray", "torch", "torchvision", "numpy", "pyarrow", "pycocotools", "deepspeed")
    there = (name for name in names if find_spec(name) is not None)  # DeepSpeed is not everywhere
    return ours | {name: package_version(name) for name in there}


def iter_status(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """One entry per node: name, key, state (done | interrupted | missing), uri, seconds, rows,
    bytes, bytes read and written in making it, and how far one is that is not done but begun."""
    for name, node in pipeline.nodes.items():
        manifest = pipeline.manifest(name)
        state = "done" if manifest else "missing"
        if not manifest and node.key in pipeline.storage.folders(node.stage.ID):
            state = "interrupted"
        far = underway(pipeline.storage, node.base) if state == "interrupted" else None
        size = manifest.size if manifest else None
        yield dict(
            name=name,
            key=node.key,
            state=state,
            uri=f"{pipeline.storage.uri}/{node.base}",
            seconds=manifest.timings_s.get("wall") if manifest else None,
            rows=size.rows if size else None,
            bytes=size.bytes if size else None,
            read_bytes=manifest.io.get("read_bytes") if manifest else None,
            written_bytes=manifest.io.get("written_bytes") if manifest else None,
            progress=far.as_json() if far else None,
        )
