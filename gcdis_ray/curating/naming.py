"""What classes are called: names of the log over those of discovery, laid on when they are read, so
that a name costs no training."""

from __future__ import annotations

from typing import Protocol

from gcdis_ray.curating.acts import canonical, moves
from gcdis_ray.curating.log import read_log
from gcdis_ray.curating.replay import replay_over
from gcdis_ray.errors import CurationError
from gcdis_ray.store.artifacts import Artifact
from gcdis_ray.store.storage import Storage


class Run(Protocol):
    """What of a run it takes; :class:`gcdis_ray.run.opened.OpenedRun` is one."""

    @property
    def source(self) -> str: ...
    @property
    def storage(self) -> Storage: ...
    @property
    def crops_key(self) -> str: ...
    def has(self, member: str) -> bool: ...
    def artifact_with(self, member: str) -> Artifact: ...


def class_names(run: Run) -> dict[int, str]:
    """The name of every class of a run, by ``class_index``, known and discovered.

    Raises:
        ConfigError: discovery has not been run.
        CurationError: the log cannot be read or followed; or people have merged, split or rejected
            classes since, so that the classes of this run are others than theirs.
    """
    acts = read_log(run.storage, run.crops_key)
    rows = run.artifact_with("discovered_classes").json("discovered_classes")
    names = {int(row["class_index"]): str(row["name"]) for row in rows}
    if not acts:
        return names
    done = run.artifact_with("curation").json("curation") if run.has("curation") else {}
    if canonical(moves(acts)) != done.get("decisions", []):
        raise CurationError(
            "classes were merged, split or rejected since this run was made",
            where=run.source,
            fix="gcdis run CONFIG",
        )
    return names | replay_over(run.artifact_with("assignments"), acts).names
