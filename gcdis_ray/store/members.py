"""Members of artifacts: what a stage says that it takes and gives, and how it reads what it takes.

A *member* is a named part of an artifact: a sharded table, tensors, or a JSON document. Stages know
one another by members alone; which stage gives one is the recipe's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import pyarrow as pa

from gcdis_ray.errors import ArtifactError
from gcdis_ray.store.artifacts import Artifact, Table, TensorFile


@dataclass(frozen=True)
class Member:
    """A member that a stage gives.

    Args:
        name: may end in ``*``: any number of members whose names begin so.
        schema: of a table.
        optional: not in every artifact of the stage.
        sealed: for evaluation only. Whoever takes it has to say so, and all that a taker gives is
            sealed as well.
    """

    name: str
    kind: Literal["table", "json", "tensors"]
    schema: pa.Schema | None = None
    optional: bool = False
    sealed: bool = False

    def names(self, member: str) -> bool:
        """Whether it declares the member of that name."""
        if self.name.endswith("*"):
            return member.startswith(self.name[:-1])
        return member == self.name


def table(name: str, schema: pa.Schema, *, optional: bool = False, sealed: bool = False) -> Member:
    return Member(name, "table", schema, optional, sealed)


def document(name: str, *, optional: bool = False, sealed: bool = False) -> Member:
    """A JSON document."""
    return Member(name, "json", None, optional, sealed)


def tensors(name: str, *, optional: bool = False, sealed: bool = False) -> Member:
    return Member(name, "tensors", None, optional, sealed)


def schemas_of(members: Iterable[Member]) -> dict[str, pa.Schema]:
    """Name -> schema of every table among them."""
    return {member.name: member.schema for member in members if member.schema is not None}


def declared(members: Iterable[Member], name: str) -> Member | None:
    """The declaration of a member, if there is one."""
    return next((member for member in members if member.names(name)), None)


@dataclass(frozen=True)
class Need:
    """A member that a stage takes.

    Args:
        optional: the stage does without, if no stage before it gives the member or if the artifact
            has none.
        sealed: the stage may open sealed members. One such need is the right to all it takes.
        whole: with it, the stage may read all unsealed members of the artifact that it lies in:
            for what names its own parts, as a trained method does.
    """

    member: str
    optional: bool = False
    sealed: bool = False
    whole: bool = False


def need(taken: str | Need) -> Need:
    """A plain name is a need without marks."""
    return taken if isinstance(taken, Need) else Need(taken)


def optional(taken: str | Need) -> Need:
    return replace(need(taken), optional=True)


def sealed(taken: str | Need) -> Need:
    return replace(need(taken), sealed=True)


def whole(taken: str | Need) -> Need:
    return replace(need(taken), whole=True)


class Members(Protocol):
    """Members by name, wherever they lie."""

    def has(self, member: str) -> bool: ...
    def table(self, member: str) -> Table: ...
    def json(self, member: str) -> Any: ...
    def tensor_file(self, member: str) -> TensorFile: ...


class Inputs:
    """What a stage may read: the members it takes and no others. Implements :class:`Members`."""

    def __init__(self, artifacts: Mapping[str, Artifact], whole: Iterable[str] = ()) -> None:
        """Args:
        artifacts: member -> the artifact that it lies in.
        whole: members that may be read with those beside them.
        """
        self._artifacts, self._whole = dict(artifacts), frozenset(whole)

    def _of(self, member: str) -> Artifact:
        if member not in self._artifacts:
            raise ArtifactError(
                f"member {member!r} is not among what the stage takes", where="its TAKES"
            )
        return self._artifacts[member]

    def has(self, member: str) -> bool:
        artifact = self._artifacts.get(member)
        return artifact is not None and artifact.has(member)

    def table(self, member: str) -> Table:
        return self._of(member).table(member)

    def json(self, member: str) -> Any:
        return self._of(member).json(member)

    def tensor_file(self, member: str) -> TensorFile:
        return self._of(member).tensor_file(member)

    def beside(self, member: str) -> Members:
        """The artifact that a member taken as ``whole`` lies in."""
        if member not in self._whole:
            raise ArtifactError(f"member {member!r} is not taken as a whole", where="its TAKES")
        return self._of(member)
