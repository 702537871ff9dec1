"""Names of the log, laid over the classes of a run when they are read."""

import pytest
from scene_tables import FakeArtifact, memory_table

from gcdis_ray.curating.acts import Merge, Name, Undo
from gcdis_ray.curating.log import append
from gcdis_ray.curating.naming import class_names
from gcdis_ray.errors import CurationError
from gcdis_ray.store.storage import open_storage

CLASSES = [
    {"class_index": 0, "name": "cat", "known": True, "category_id": 1},
    {"class_index": 1, "name": "novel 1", "known": False, "category_id": None},
    {"class_index": 2, "name": "novel 2", "known": False, "category_id": None},
]
ROWS = [
    {
        "crop_index": n,
        "class_index": -1,
        "cluster_id": k,
        "topk_ids": [k],
        "topk_probabilities": [1.0],
        "embedding": [1.0],
    }
    for n, k in enumerate([0, 1, 2, 2])
]


class Run:
    source = "run.yaml"
    crops_key = "key"

    def __init__(self, storage, decisions):
        assignments = memory_table("assignments", [ROWS])
        found = FakeArtifact({"assignments": assignments, "discovered_classes": CLASSES})
        rows = [row for row in CLASSES if not decisions or row["class_index"] < 2]
        told = {"discovered_classes": rows, "curation": {"decisions": decisions}}
        self.storage, self.made = storage, [found, FakeArtifact(told)]

    def has(self, member):
        return any(made.has(member) for made in self.made)

    def artifact_with(self, member):
        return next(made for made in reversed(self.made) if made.has(member))


def test_names_are_read_over_those_of_discovery(tmp_path):
    storage = open_storage(str(tmp_path))
    run = Run(storage, [])
    assert class_names(run) == {0: "cat", 1: "novel 1", 2: "novel 2"}
    append(storage, "key", [Name(3, "zebra")])
    assert class_names(run) == {0: "cat", 1: "novel 1", 2: "zebra"}


def test_classes_of_other_decisions_are_refused(tmp_path):
    storage = open_storage(str(tmp_path))
    append(storage, "key", [Merge((1, 3)), Name(1, "zebra")])
    with pytest.raises(CurationError, match=r"since this run was made(.|\n)*gcdis run"):
        class_names(Run(storage, []))
    done = Run(storage, [{"act": "merge", "crops": [1, 3]}])
    assert class_names(done) == {0: "cat", 1: "zebra"}
    append(storage, "key", [Undo(), Undo()])
    with pytest.raises(CurationError, match="since this run was made"):
        class_names(done)
    assert class_names(Run(storage, [])) == {0: "cat", 1: "novel 1", 2: "novel 2"}
