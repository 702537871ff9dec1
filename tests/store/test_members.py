"""What a stage may read of what, by the names of members."""

from __future__ import annotations

from typing import Any

import pytest

from gcdis_ray.errors import ArtifactError
from gcdis_ray.store.artifacts import Artifact, FileRecord, Manifest
from gcdis_ray.store.members import (
    Inputs,
    Need,
    declared,
    document,
    need,
    optional,
    schemas_of,
    sealed,
    table,
    tensors,
    whole,
)
from gcdis_ray.store.schemas import CROPS, HISTORY


class Files:
    """Reads every JSON document as its own path."""

    def read_bytes(self, record: FileRecord) -> bytes:
        return f'"{record.path}"'.encode()

    def read_table(self, record: FileRecord, columns: Any) -> Any:
        raise NotImplementedError


def artifact(*members: str) -> Artifact:
    files = {name: [FileRecord(name, 1, "", rows=3)] for name in members}
    return Artifact(Manifest("stage", "key", 1, {}, {}, None, None, files), Files())


def test_a_stage_reads_what_it_takes_and_nothing_beside_it():
    found = Inputs({"told": artifact("told", "untold")})
    assert found.has("told")
    assert found.json("told") == "told"
    assert found.table("told").num_rows == 3
    assert found.tensor_file("told").record.path == "told"
    assert not found.has("untold")  # its artifact has it
    for read in (found.json, found.table, found.tensor_file):
        with pytest.raises(ArtifactError, match="'untold' is not among what the stage takes"):
            read("untold")


def test_what_an_artifact_may_lack_is_asked_for():
    found = Inputs({"told": artifact("told"), "maybe": artifact("told")})
    assert not found.has("maybe")
    with pytest.raises(ArtifactError, match="no member 'maybe'"):
        found.json("maybe")


def test_the_whole_artifact_is_open_to_who_takes_it_so():
    given = artifact("method", "weights")
    found = Inputs({"method": given, "classes": given}, whole=["method"])
    assert found.beside("method").json("weights") == "weights"
    assert not found.has("weights")
    with pytest.raises(ArtifactError, match="'classes' is not taken as a whole"):
        found.beside("classes")


def test_a_name_may_be_the_beginning_of_names():
    members = (document("total"), tensors("snapshot_*", optional=True))
    assert members[1].names("snapshot_12")
    assert not members[1].names("snapshots")
    assert declared(members, "snapshot_1") is members[1]
    assert declared(members, "total") is members[0]
    assert declared(members, "totals") is None


def test_schemas_are_those_of_tables():
    members = (document("total"), table("crops", CROPS), table("history", HISTORY, optional=True))
    assert schemas_of(members) == {"crops": CROPS, "history": HISTORY}


def test_marks_of_a_need_add_up():
    assert need("a") == Need("a")
    marked = optional(whole(sealed("a")))
    assert marked == Need("a", optional=True, sealed=True, whole=True)
    assert need(marked) is marked
