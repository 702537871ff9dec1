"""Three nodes: where the work goes, what it holds, and what becomes of it when a node dies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from marked import looks_into_proc
from raylets import HERE, Cluster, wait_for
from staged import DATA_GPUS, Holdings, NodeKiller, check, drive, overrides_on
from workers import DATA, DATA_STAGES, NETWORK_STAGES, RANK, TRAINED_STAGES, kind_of

pytestmark = [pytest.mark.ray, pytest.mark.thorough, pytest.mark.timeout(900), looks_into_proc]


def test_the_pool_grows_with_the_cluster(cluster: Cluster, tmp_path: Path):
    """A head alone holds no worker. Two nodes that join hold two each, as many as are wanted."""
    for node in list(cluster.nodes):
        cluster.kill(node)
    driver = subprocess.Popen(
        [sys.executable, str(HERE / "held_task.py"), str(tmp_path), "24", "4"],
        env=cluster.environment | {"RAY_ADDRESS": cluster.address},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert driver.stdout is not None
    try:
        told = [driver.stdout.readline() for _ in range(2)]
        assert told == [
            "AT 0 \n",
            "AT 0 waiting for resources: need 1 CPU, the cluster has nothing\n",
        ]
        cluster.have(1)
        wait_for(lambda: workers(cluster) == [2], "two workers on the first node")
        cluster.have(2)
        wait_for(lambda: workers(cluster) == [2, 2], "two workers on each of two nodes")
        (tmp_path / "released").touch()
        *_, last = driver.stdout
        assert json.loads(last.removeprefix("DONE")) == list(range(24))
        assert driver.wait() == 0
    finally:
        driver.kill()
        driver.wait()


def workers(cluster: Cluster) -> list[int]:
    """Actors of data steps on each node."""
    return [
        sum(kind_of(command) == DATA for command in node.processes().values())
        for node in cluster.nodes
    ]


@pytest.mark.long
def test_a_run_on_three_nodes_loses_two_and_nothing_else(
    cluster: Cluster, small_run, s3_endpoint: str, tmp_path: Path, record_property
):
    """The same bytes as of one process, whatever dies; and workers hold what the config says."""
    overrides = overrides_on(s3_endpoint, "three-nodes", small_run)
    killer = NodeKiller(cluster, overrides, {("embed", DATA), ("discover", RANK)})
    holdings = Holdings(cluster)
    drive(cluster, overrides, killer, tmp_path / "log", holdings.note)
    check(killer, overrides, small_run, record_property)
    assert holdings.held == {
        **{(stage, DATA): {(1.0, 0.0)} for stage in DATA_STAGES - NETWORK_STAGES},
        **{(stage, DATA): {(1.0, DATA_GPUS)} for stage in NETWORK_STAGES},
        ("label", DATA): {(1.0, DATA_GPUS), (1.0, 0.0)},  # crops are ranked on cores
        **{(stage, RANK): {(0.5, 1.0)} for stage in TRAINED_STAGES},
    }
    assert len(holdings.nodes) >= 4  # two to start with, and those that took their places
    boards = {a["node_id"] for a in cluster.state("actors") if a["class_name"] == "_Board"}
    assert boards.isdisjoint(holdings.nodes)  # or it would die with one of them
