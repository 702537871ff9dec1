"""The cluster's files against the schemas of what reads them, and against the shipped configs."""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from small_run import ROOT

CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
SHIPPED = sorted((ROOT / "configs").glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def objects() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}-{number}", document)
        for path in sorted(KUBERAY.glob("*.yaml"))
        for number, document in enumerate(documents(path))
    ]


@lru_cache
def _schema() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("kubernetes_schema.json").read_text())


def validate(document: dict[str, Any]) -> None:
    schema = {"$ref": f"#/$defs/{document['kind']}", "$defs": _schema()["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(document)


JOB = documents(KUBERAY / "job.yaml")[0]
SPEC = JOB["spec"]["rayClusterSpec"]
GROUPS = {group["groupName"]: group for group in SPEC["workerGroupSpecs"]}
HEAD = SPEC["headGroupSpec"]["template"]["spec"]
LAUNCHER = yaml.safe_load((CLUSTER / "aws.yaml").read_text())


def pods() -> dict[str, dict[str, Any]]:
    """Spec of every pod of a run, by name."""
    return {
        "head": HEAD,
        "submitter": JOB["spec"]["submitterPodTemplate"]["spec"],
        **{name: group["template"]["spec"] for name, group in GROUPS.items()},
    }


@pytest.mark.parametrize(("name", "document"), objects(), ids=[name for name, _ in objects()])
def test_kubernetes_takes_it(name: str, document: dict[str, Any]):
    validate(document)


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "shutdownAfterJobFinishs"),
        ("spec", "rayClusterSpec", "autoscalerOption"),
        ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "nodeSelectors"),
    ],
    ids=lambda path: path[-1],
)
def test_a_slip_of_the_pen_is_not_taken(path: tuple[str, ...]):
    job = copy.deepcopy(JOB)
    place = job
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = {}
    with pytest.raises(jsonschema.ValidationError):
        validate(job)


def test_creating_the_job_again_is_no_conflict():
    """A generated name short enough for what KubeRay hangs on it (63 less its own 16)."""
    assert set(JOB["metadata"]) == {"generateName", "labels"}
    assert len(JOB["metadata"]["generateName"]) + 5 <= 47


def test_rules_of_the_operator_beyond_the_schema():
    """What KubeRay 1.6 refuses though the schema takes it, and what its probes need."""
    spec = JOB["spec"]
    assert spec["shutdownAfterJobFinishes"]  # else no ttlSecondsAfterFinished
    assert SPEC["rayVersion"] == ray.__version__
    assert tuple(map(int, ray.__version__.split(".")[:2])) >= (2, 53)  # probes by HTTP, not wget
    assert SPEC["authOptions"] == {"mode": "token"}
    for group in SPEC["workerGroupSpecs"]:
        both = {"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"])
        assert not (both and group.get("resources"))
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert "restartPolicy" not in group["template"]["spec"]  # autoscaler v2 sets Never
    head = HEAD["containers"][0]
    assert not {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD"} & {e["name"] for e in head["env"]}
    for pod in pods().values():
        for container in pod["containers"]:
            assert "livenessProbe" not in container
            assert "readinessProbe" not in container


def test_the_driver_has_its_place():
    """The entry point asks for what one group alone has, and that one is always there."""
    wanted = json.loads(JOB["spec"]["entrypointResources"])
    (group,) = (g for g in GROUPS.values() if wanted.keys() <= set(g.get("resources", ())))
    assert group["minReplicas"] == group["maxReplicas"] == 1
    assert group["resources"]["CPU"] == SPEC["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    paths = {m["mountPath"] for m in group["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert "/etc/gcdis" in paths
    assert "/etc/gcdis/" in JOB["spec"]["entrypoint"]


def test_spot_nodes_hold_only_what_may_be_lost():
    for name, pod in pods().items():
        kind = pod["nodeSelector"]["karpenter.sh/capacity-type"]
        assert kind == ("spot" if name in ("cpu", "gpu") else "on-demand"), name
        assert bool(pod.get("tolerations")) == (kind == "spot")
        near_gpus = any(t["key"] == "nvidia.com/gpu" for t in pod.get("tolerations", ()))
        assert near_gpus == (name == "gpu")  # other pods would keep a GPU node from going


def test_spot_pods_use_their_grace_to_drain():
    for name in ("cpu", "gpu"):
        pod = pods()[name]
        env = {e["name"]: e["value"] for e in pod["containers"][0]["env"]}
        budget = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert 60 <= budget < pod["terminationGracePeriodSeconds"]


def test_scratch_is_asked_for():
    """Who brings nodes looks at requests only: their disks must hold what a pod may write."""
    for name, group in GROUPS.items():
        pod = group["template"]["spec"]
        (scratch,) = (v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "scratch")
        asked = pod["containers"][0]["resources"]["requests"]["ephemeral-storage"]
        assert int(asked.removesuffix("Gi")) > int(scratch.removesuffix("Gi")), name


def test_the_state_of_the_cluster_outlives_the_head():
    deployment, service = documents(KUBERAY / "redis.yaml")
    address = SPEC["gcsFaultToleranceOptions"]["redisAddress"]
    name, port = address.split(":")
    assert service["metadata"]["name"] == name
    assert int(port) in {p["port"] for p in service["spec"]["ports"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    secret = SPEC["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]
    (env,) = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env["valueFrom"]["secretKeyRef"] == secret


def test_no_pod_is_more_than_it_must_be():
    redis = documents(KUBERAY / "redis.yaml")[0]["spec"]["template"]["spec"]
    for name, pod in (pods() | {"redis": redis}).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] != 0
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]) == {"requests", "limits"}
        mounted = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", ())}
        assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
        text = json.dumps(pod)
        assert "AWS_SECRET" not in text


def test_objects_fit_into_the_shared_memory():
    """Ray lays its objects (30 % of memory unless told) into /dev/shm."""
    for name, group in GROUPS.items():
        pod = group["template"]["spec"]
        (shm,) = (v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "shm")
        memory = int(pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Gi"))
        told = group["rayStartParams"].get("object-store-memory")
        objects = int(told) / 2**30 if told else 0.3 * memory
        assert objects < int(shm.removesuffix("Gi")) < memory, name


# ------------------------------------------------------------ the shipped configs fit


def gpu_configs() -> list[Path]:
    found = [path for path in SHIPPED if compute_of(path).get("gpus_per_worker")]
    assert len(found) >= 3
    return found


@lru_cache
def compute_of(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text()).get("compute", {})


def kubernetes_room() -> tuple[int, int]:
    """CPUs and GPUs that the pods of KubeRay come to when all are there."""
    cpus = gpus = 0
    for group in SPEC["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        own = int(group.get("resources", {}).get("CPU", limits["cpu"]))
        cpus += group["maxReplicas"] * own
        gpus += group["maxReplicas"] * int(limits.get("nvidia.com/gpu", 0))
    return cpus, gpus


def launcher_room() -> tuple[int, int]:
    types = LAUNCHER["available_node_types"].values()
    total = [
        sum(kind["max_workers"] * kind["resources"].get(name, 0) for kind in types)
        for name in ("CPU", "GPU")
    ]
    return total[0], total[1]


@pytest.mark.parametrize("room", [kubernetes_room, launcher_room])
@pytest.mark.parametrize("path", gpu_configs(), ids=lambda path: path.stem)
def test_what_a_shipped_config_asks_for_can_be_had(path: Path, room: Any):
    compute = compute_of(path)
    cpus, gpus = room()
    assert gpus == compute["workers"] * compute["gpus_per_worker"]  # none is paid for and idle
    assert cpus >= compute["data_workers"] + 0.5 * compute["workers"]


def test_work_on_cpus_starts_no_gpu_node():
    """The pool of a data stage fits beside the GPU nodes."""
    most = max(compute_of(path)["data_workers"] for path in gpu_configs())
    cpu = GROUPS["cpu"]
    pod = int(cpu["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert cpu["maxReplicas"] * pod >= most
    kind = LAUNCHER["available_node_types"]["cpu"]
    assert kind["max_workers"] * kind["resources"]["CPU"] >= most


# ------------------------------------------------------------ network


def policies() -> dict[str, dict[str, Any]]:
    return {p["metadata"]["name"]: p["spec"] for p in documents(KUBERAY / "network.yaml")}


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


RUN = {"app": "gcdis", "ray.io/node-type": "worker"}
HEAD_POD = RUN | {"ray.io/node-type": "head"}
REDIS = {"app": "gcdis-redis"}
DNS = {"k8s-app": "kube-dns", "namespace": "kube-system"}
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator", "namespace": "kuberay"}
PROMETHEUS = {"app": "prometheus", "namespace": "monitoring"}
STRANGER = {"app": "other"}


def _rules(labels: dict[str, str], way: str) -> Iterator[dict[str, Any]]:
    for policy in policies().values():
        if _matches(policy["podSelector"], labels):
            yield from policy.get(way, ())


def _peer(peer: dict[str, Any], labels: dict[str, str] | str) -> bool:
    if isinstance(labels, str):  # an address outside
        return "ipBlock" in peer and not labels.startswith("169.254.")
    if "ipBlock" in peer:
        return False
    space = {"kubernetes.io/metadata.name": labels.get("namespace", "default")}
    here = labels.get("namespace", "default") == "default"
    near = _matches(peer["namespaceSelector"], space) if "namespaceSelector" in peer else here
    return near and _matches(peer.get("podSelector", {}), labels)


def _open(rules: Iterator[dict[str, Any]], key: str, other: Any, port: int) -> bool:
    return any(
        any(_peer(peer, other) for peer in rule[key])
        and ("ports" not in rule or port in [p["port"] for p in rule["ports"]])
        for rule in rules
    )


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (RUN, HEAD_POD, 6379, True),
        (HEAD_POD, RUN, 40000, True),
        (RUN, REDIS, 6379, True),
        (RUN, DNS, 53, True),
        (RUN, DNS, 80, False),
        (RUN, "52.1.2.3", 443, True),
        (RUN, "52.1.2.3", 80, False),
        (RUN, "169.254.169.254", 443, False),
        (RUN, "10.0.0.1", 6443, False),
        (HEAD_POD, "10.0.0.1", 6443, True),
        (OPERATOR, HEAD_POD, 8265, True),
        (OPERATOR, HEAD_POD, 6379, False),
        (OPERATOR, RUN, 8265, False),
        (PROMETHEUS, RUN, 8080, True),
        (PROMETHEUS, HEAD_POD, 8265, False),
        (STRANGER, HEAD_POD, 8265, False),
        (STRANGER, REDIS, 6379, False),
        (REDIS, "52.1.2.3", 443, False),
        (REDIS, HEAD_POD, 6379, False),
    ],
)
def test_who_may_speak_to_whom(source: Any, target: Any, port: int, expected: bool):
    ours = ("gcdis", "gcdis-redis")
    allowed = True
    if source.get("app") in ours:
        allowed &= _open(_rules(source, "egress"), "to", target, port)
    if isinstance(target, dict) and target.get("app") in ours:
        allowed &= _open(_rules(target, "ingress"), "from", source, port)
    assert allowed is expected


def test_every_pod_is_shut_first():
    deny = policies()["gcdis-deny"]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny
    assert "egress" not in deny
    templates = [SPEC["headGroupSpec"]["template"], JOB["spec"]["submitterPodTemplate"]]
    templates += [group["template"] for group in GROUPS.values()]
    templates.append(documents(KUBERAY / "redis.yaml")[0]["spec"]["template"])
    for template in templates:
        assert _matches(deny["podSelector"], template["metadata"]["labels"])


# ------------------------------------------------------------ ray up


def _launcher(change: Any = None) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = copy.deepcopy(LAUNCHER)
    if change:
        change(config)
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(config, json.loads(schema.read_text()))
    prepared = prepare_config(config)  # its own defaults added
    validate_config(prepared)
    return prepared


def test_ray_up_takes_it():
    prepared = _launcher()
    assert prepared["head_node_type"] == "head"
    head = prepared["available_node_types"]["head"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"]["CPU"] == 0
    for name in ("cpu", "gpu"):
        kind = prepared["available_node_types"][name]
        assert kind["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    starts = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert "/home/ray/.ray/auth_token" in prepared["file_mounts"]


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.update(idle_timeout=3),
        lambda config: config.update(head_node_type="headd"),
        lambda config: config["available_node_types"]["gpu"].update(spot=True),
    ],
)
def test_ray_up_refuses_a_slip_of_the_pen(change: Any):
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        _launcher(change)


def test_the_lock_is_of_the_version_that_the_files_name():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (locked,) = (p["version"] for p in lock["package"] if p["name"] == "ray")
    assert SPEC["rayVersion"] == locked
