"""The page of a run whose classes people named, merged, split and rejected."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic_run import artifact, make_run

from gcdis_ray.curating.acts import Merge, Name, Reject, Split, canonical
from gcdis_ray.curating.outputs import class_of_cluster
from gcdis_ray.curating.replay import REJECTED, replay_over
from gcdis_ray.report.assigned import read_crops_assigned
from gcdis_ray.report.class_sections import class_sections
from gcdis_ray.report.decisions_section import decisions_section
from gcdis_ray.report.heat import assigned_class_heat, read_heat


@pytest.fixture(scope="module")
def view():
    return make_run()


def _curated(view, acts):
    """The run with these acts followed, as stage curate leaves it."""
    discovered = view.artifacts["discover"]
    moved = [act for act in acts if not isinstance(act, Name)]
    found, plain = replay_over(discovered, acts), replay_over(discovered, moved)
    shards, start = [], 0
    for shard in discovered.table("assignments").iter_shards(["crop_index"]):
        crops = shard["crop_index"].to_pylist()
        ids = found.cluster_N[start : start + len(crops)].tolist()
        shards.append([{"crop_index": c, "cluster_id": k} for c, k in zip(crops, ids, strict=True)])
        start += len(crops)
    document = {
        "decisions": canonical(moved),
        "class_of_cluster": class_of_cluster(found.classes, found.rejected),
        "discovered": [row["name"] for row in discovered.json("discovered_classes")],
        "rejected_crops": int((found.cluster_N == REJECTED).sum()),
    }
    made = artifact(
        "curate",
        {"partition": shards},
        {"discovered_classes": plain.classes, "curation": document},
    )
    kept = {n: view.artifacts[n] for n in ("ingest", "propose", "crop", "embed", "discover")}
    artifacts = {**kept, "curate": made}
    return dataclasses.replace(view, artifacts=artifacts, names=found.names), found


def _crops_of(view) -> dict[int, list[int]]:
    rows = view.table("assignments").read(["crop_index", "class_index", "cluster_id"]).to_pylist()
    found: dict[int, list[int]] = {}
    for row in rows:
        if row["class_index"] < 0:
            found.setdefault(row["cluster_id"], []).append(row["crop_index"])
    return found


def test_what_people_decided_is_told_in_words_and_shown(view):
    of = _crops_of(view)
    one, two, three, four = [k for k in sorted(of) if k >= 5 and len(of[k]) > 1][:4]
    name = {row["class_index"]: row["name"] for row in view.json("discovered_classes")}
    acts = [
        Name(of[one][0], "zebra"),
        Merge((of[one][0], of[two][0])),
        Split((of[three][0],)),
        Name(of[three][0], "yak"),
        Reject(of[four][0]),
    ]
    seen, found = _curated(view, acts)
    assert {"zebra", "yak"} <= {row.name for row in seen.classes()}
    assert decisions_section(seen).sentences == [
        f"People merged {name[one]}, {name[two]} into zebra.",
        "People split off yak.",
        f"People rejected {name[four]}: {len(of[four])} crops in no class.",
    ]
    crops = read_crops_assigned(seen)
    assert crops is not None
    assert set(crops.crop_index.tolist()) == {c for k in of for c in of[k]} - set(of[four])
    place = np.argsort(seen.table("assignments").read(["crop_index"])["crop_index"].to_numpy())
    assert (found.cluster_N[place][crops.crop_index] == crops.class_index).all()
    shown = class_sections(seen)[0]
    assert "zebra" in shown.body()
    heat = read_heat(seen)
    assert heat is not None
    assert (heat.class_index == -1).sum() == len(of[four])
    assert -1 not in {row.class_index for row in seen.classes()}
    assert sum(h.num_crops for h in assigned_class_heat(heat, seen.classes())) == (
        len(heat.class_index) - len(of[four])
    )
    assert sum(len(part) for part in heat.thirds().values()) > 0


def test_names_are_of_curated_classes_only(view):
    seen, _ = _curated(view, [])
    named = dataclasses.replace(seen, names={5: "zebra"})
    assert named.classes()[5].name == "zebra"
    assert named.until("discover").classes()[5].name == "new-1"


def test_without_decisions_nothing_is_said(view):
    seen, _ = _curated(view, [])
    assert decisions_section(seen).sentences == []
