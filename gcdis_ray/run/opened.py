"""A run that is there, opened to make use of it: by its config, or by its storage alone.

``gcdis run`` notes in ``runs/<name>.json`` of the storage which artifact each node has. So a copied
folder, or a prefix of a bucket, is enough to name, predict and export on another machine, without
the data set and the config file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcdis_ray.config import RunConfig
from gcdis_ray.errors import ArtifactError, ConfigError
from gcdis_ray.run.graph import Graph, load_recipe, make_config
from gcdis_ray.run.pipeline import Pipeline, load_config
from gcdis_ray.store.artifacts import Artifact
from gcdis_ray.store.members import Inputs, declared, schemas_of
from gcdis_ray.store.storage import Storage, open_artifact, open_storage, read_manifest

_FOLDER, _FORMAT = "runs", 1


@dataclass(frozen=True)
class OpenedRun:
    """A run, finished or not.

    Args:
        source: what it was opened by, for messages.
        keys: key of each node's artifact, made or not, in the recipe's order.
    """

    source: str
    config: RunConfig
    storage: Storage
    graph: Graph
    keys: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.config.name

    def artifact(self, node: str) -> Artifact | None:
        """The artifact of a node, if it is committed."""
        stage = self.graph[node].node.stage
        manifest = read_manifest(self.storage, stage.ID, self.keys[node])
        return open_artifact(self.storage, manifest, schemas_of(stage.GIVES)) if manifest else None

    def giver(self, member: str) -> str:
        """The last node that gives a member.

        Raises:
            ConfigError: none does, or it is sealed.
        """
        name = self._giver(member)
        if name is None:
            raise ConfigError(
                f"no stage of recipe {self.config.recipe} gives {member!r}", where=self.source
            )
        wired = self.graph[name]
        found = declared(wired.node.stage.GIVES, member)
        if wired.opens_sealed or (found and found.sealed):
            raise ConfigError(f"{member!r} is sealed: for evaluation only", where=name)
        return name

    def _giver(self, member: str) -> str | None:
        names = reversed(list(self.graph))
        return next((n for n in names if declared(self.graph[n].node.stage.GIVES, member)), None)

    def artifact_with(self, member: str) -> Artifact:
        """The artifact that a member lies in.

        Raises:
            ConfigError: no stage gives it, or the one that does has not been run.
        """
        node = self.giver(member)
        artifact = self.artifact(node)
        if artifact is None:
            raise ConfigError(
                f"stage {node} has not been run, and {member!r} is what it gives",
                where=self.source,
                fix=f"gcdis run CONFIG --until {node}",
            )
        if not artifact.has(member):
            raise ConfigError(f"stage {node} has given no {member!r}", where=self.source)
        return artifact

    def has(self, member: str) -> bool:
        """Whether the member is there to be read."""
        name = self._giver(member)
        artifact = self.artifact(name) if name else None
        return artifact is not None and artifact.has(member)

    def inputs(self, *members: str, optional: Sequence[str] = ()) -> Inputs:
        """These members, as a stage would read them.

        Args:
            optional: those that may be absent.

        Raises:
            ConfigError: as :meth:`artifact_with`.
        """
        there = [*members, *(member for member in optional if self.has(member))]
        return Inputs({member: self.artifact_with(member) for member in there}, there)

    @property
    def crops_key(self) -> str:
        """Of the artifact that crops lie in: what numbers of crops mean."""
        return self.keys[self.giver("crops")]


def open_run(run: str, overrides: Sequence[str] = ()) -> OpenedRun:
    """Args:
        run: a config file, the storage of a run (a folder or ``s3://bucket/prefix``), or
            ``<storage>/runs/<name>.json`` where several runs share one.
        overrides: of a config file.

    Raises:
        ConfigError: there is no run, or there are several.
    """
    if is_config(run):
        pipeline = Pipeline(load_config(run, overrides))
        pipeline.need_decisions()
        return _of(pipeline, run)
    if overrides:
        raise ConfigError(
            "a run that is opened by its storage is as it is", where="--set", fix="name its config"
        )
    return _read(*_note_of(run), run)


def is_config(run: str) -> bool:
    """Whether a run is named by its config file."""
    return not run.endswith(".json") and Path(run).is_file()


def noted_config(run: str) -> RunConfig:
    """The config of a run that is named by its storage. Raises as :func:`open_run`."""
    storage, path = _note_of(run)
    return _noted(storage, path)[0]


def _note_of(run: str) -> tuple[Storage, str]:
    """Where the note of a run lies."""
    place, name = run.rstrip("/"), None
    if run.endswith(".json") and f"/{_FOLDER}/" in run:
        place, _, name = run.rpartition(f"/{_FOLDER}/")
    storage = open_storage(place)
    found = [name] if name else sorted(path.split("/")[-1] for path in storage.list(_FOLDER))
    if not found:
        raise ConfigError(
            "no run lies there",
            where=run,
            fix="name a config file, or the storage that gcdis run wrote to",
        )
    if len(found) > 1:
        listed = ", ".join(f"{storage.uri}/{_FOLDER}/{one}" for one in found[:5])
        raise ConfigError(f"{len(found)} runs lie there", where=run, fix=f"name one: {listed}")
    return storage, f"{_FOLDER}/{found[0]}"


def note_run(pipeline: Pipeline) -> None:
    """Note in the storage what it takes to open the run by it."""
    noted = {
        "format": _FORMAT,
        "config": pipeline.config.model_dump(mode="json"),
        "keys": {name: node.key for name, node in pipeline.nodes.items()},
    }
    path, data = f"{_FOLDER}/{pipeline.config.name}.json", json.dumps(noted, indent=1).encode()
    try:
        there = pipeline.storage.read(path)
    except FileNotFoundError:
        there = None
    if data != there:
        pipeline.storage.write(path, data)


def _of(pipeline: Pipeline, source: str) -> OpenedRun:
    graph = {name: node.wired for name, node in pipeline.nodes.items()}
    keys = {name: node.key for name, node in pipeline.nodes.items()}
    return OpenedRun(source, pipeline.config, pipeline.storage, graph, keys)


def _read(storage: Storage, path: str, source: str) -> OpenedRun:
    made, keys = _noted(storage, path)
    graph = load_recipe(made.recipe)
    if absent := [name for name in graph if name not in keys]:
        raise ArtifactError(
            f"it knows no stage {', '.join(absent)}",
            where=f"{storage.uri}/{path}",
            fix="use the version of gcdis that made it, or run it again",
        )
    return OpenedRun(source, made, storage, graph, keys)


def _noted(storage: Storage, path: str) -> tuple[RunConfig, dict[str, str]]:
    where = f"{storage.uri}/{path}"
    try:
        noted: Any = json.loads(storage.read(path))
        version, config, keys = noted["format"], dict(noted["config"]), dict(noted["keys"])
    except FileNotFoundError:
        raise ConfigError("no such file", where=where) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError("this is no note of a run", where=where) from error
    if version != _FORMAT:
        raise ArtifactError(
            f"a note of format {version}; known: {_FORMAT}",
            where=where,
            fix="use the version of gcdis that made it",
        )
    return make_config(config, where=where), keys
