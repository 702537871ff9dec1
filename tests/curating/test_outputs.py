"""What clusters of discovery have become, as those see it who hear its probabilities."""

import numpy as np

from gcdis_ray.curating.outputs import Outputs, class_of_cluster


def test_joined_clusters_are_a_group_and_rejected_ones_stand_alone():
    outputs = Outputs.read({"class_of_cluster": [0, 1, -1, 2, 1, -1]})
    assert outputs.groups == [[0], [1, 4], [2], [3], [5]]
    assert outputs.class_of_group.tolist() == [0, 1, -1, 2, -1]
    assert outputs.group_of(np.array([4, 5, 3, 1])).tolist() == [1, 4, 3, 1]
    assert outputs.any_joined
    assert not Outputs((0, -1, 1, -1)).any_joined


def test_clusters_by_class_turned_round():
    rows = [{"class_index": 0, "clusters": [0]}, {"class_index": 1, "clusters": [1, 3]}]
    part = {"class_index": 2, "clusters": []}
    assert class_of_cluster([*rows, part], [2]) == [0, 1, -1, 1]
