"""Placing alone, as a method: prototypes say what placing said."""

from __future__ import annotations

import numpy as np
from small_discovery import CLASSES, SHARDS, WriteCrops, artifact
from stage_inputs import inputs_of

from gcdis_ray.methods.stored_method import StoredMethod
from gcdis_ray.stages import discover, embed


def test_assignments_are_the_placed_clusters_and_new_crops_find_theirs(local_work):
    work = local_work
    work.map_shards(WriteCrops(SHARDS), [], gives=["crops"], args=[{}] * 4)
    work.write_json("classes", CLASSES)
    work.write_json("class_count", {"num_known": 2, "num_novel": 3, "num_classes": 5})
    embed.run(inputs_of(embed, artifact(work)), embed.Config.model_validate({}), work)
    placing = {"splits": 1, "stretches": [1.0], "dims": 4}
    config = discover.Config.model_validate({"method": "linkage", "placing": placing})
    discover.run(inputs_of(discover, artifact(work)), config, work)
    placed = work.table("placed").read()["cluster_id"].to_numpy()
    assigned = work.table("assignments").read()["cluster_id"].to_numpy()
    np.testing.assert_array_equal(assigned, placed)
    crops = work.table("crops").read(["jpeg", "mask_png", "class_index"])
    labels = crops["class_index"].to_numpy()
    np.testing.assert_array_equal(placed[labels >= 0], labels[labels >= 0])
    trained = StoredMethod.read(artifact(work)).open("cpu")
    told = trained.infer(crops.select(["jpeg", "mask_png"]))  # embedded by itself
    np.testing.assert_array_equal(told.probabilities_NC.argmax(axis=1), placed)
