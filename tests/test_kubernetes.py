"""The manifests of deploy/kubernetes: right by Kubernetes' schemas, by each other, by our settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from conftest import need
from facerelay.config import Config
from facerelay.metrics.catalogue import CATALOGUE
from manifests import MANIFESTS, ROOT, Built, Manifests, Object, Pod

VERSIONS = ("1.31", "1.37")
OTHERS = {"PodMonitor": "monitoring.coreos.com/v1", "ScaledObject": "keda.sh/v1alpha1"}
"""Kinds of others, which no schema of Kubernetes has."""

OVERLAYS = ("production", "one-node", "everything")
USER = 10001


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """Build each overlay once; `everything` has what is commented out in `production`, and KEDA."""
    done: dict[str, Built] = {}

    def build(overlay: str) -> Built:
        if overlay not in done:
            known = "production" if overlay == "everything" else overlay
            here = Manifests.copy(tmp_path_factory.mktemp(overlay), known)
            if overlay == "everything":
                here.change("# - ../../components", "- ../../components").change("autoscale", "keda")
                page = "tls.crt=enrolled/trust/broker.pem, tls.key=enrolled/trust/broker.key"
                more = f"  - {{name: page, files: [{page}]}}\n"
                more += "  - {name: page-token, files: [token=enrolled/bucket-key]}\n"
                more += "  - {name: seaweed-s3, files: [enrolled/s3.json]}\n"
                here.change("secretGenerator:\n", f"secretGenerator:\n{more}")
            done[overlay] = here.build()
        return done[overlay]

    return build


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_own_schemas_take_every_object(
    built: Callable[[str], Built], overlay: str, version: str
) -> None:
    for each in built(overlay).objects:
        if each["kind"] in OTHERS:
            assert each["apiVersion"] == OTHERS[each["kind"]]
        else:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_pod_starts_with_settings_that_can_be_read_and_files_that_are_there(
    built: Callable[[str], Built], overlay: str, tmp_path: Path
) -> None:
    for pod in built(overlay).pods.values():
        if not pod.ours:
            continue
        config = pod.config(tmp_path)
        files = {folder / name for folder, mounted in pod.mounts().items() for name in mounted}
        for path in needed(pod.name, config):
            assert path in files or path in pod.mounts(), f"{pod.name}: {path} is not mounted"
        assert pod.ports["metrics"] == config.metrics.port_of(pod.name)
        assert config.metrics.enabled
        assert config.metrics.host == "0.0.0.0"  # noqa: S104 - a probe comes from outside the pod


def needed(role: str, config: Config) -> list[Path]:
    """Return the files that a role reads."""
    broker, trust, page = config.broker, config.trust, config.gallery
    found = {
        "broker": [broker.ca, broker.server_cert, broker.server_key, trust.authority, trust.devices],
        "store": [
            broker.ca, broker.cert, broker.key, trust.authority, trust.cert, trust.key, trust.devices,
            config.bucket.secret_key_file,
        ],
        "gallery": [
            trust.authority, trust.cert, trust.key, trust.devices, page.broker_cert, page.broker_key,
            config.bucket.secret_key_file, *([page.cert, page.key, page.token_file] if page.cert else []),
        ],
    }[role]  # fmt: skip
    assert None not in found
    return [path for path in found if path is not None]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_addresses_in_the_settings_are_services_and_nodes_that_exist(
    built: Callable[[str], Built], overlay: str, tmp_path: Path
) -> None:
    known = built(overlay)
    broker, store = known.pods["broker"], known.pods["store"]
    node, cloud = broker.config(tmp_path), store.config(tmp_path)
    many = broker.workload["spec"]["replicas"]
    names = [f"broker-{number}.brokers" for number in range(many)]
    assert broker.workload["spec"]["serviceName"] == "brokers"
    assert node.broker.port == cloud.broker.port == broker.ports["mqtts"]
    assert {urlsplit(each).hostname for each in cloud.jetstream.servers} == set(names)
    assert {urlsplit(each).port for each in cloud.jetstream.servers} == {broker.ports["nats"]}
    assert urlsplit(node.cluster.clients).port == broker.ports["nats"]
    assert cloud.store.intake == "jetstream"
    assert cloud.store.instance == "store-0"
    assert cloud.jetstream.stream == node.jetstream.stream
    assert node.topics == cloud.topics
    assert node.limits == cloud.limits
    assert node.cluster.joined == (many > 1)
    if node.cluster.joined:
        assert [urlsplit(each).hostname for each in node.cluster.routes] == names
        assert {urlsplit(each).port for each in node.cluster.routes} == {broker.ports["routes"]}
        assert node.cluster.node == "broker-0"
    ports = {each["name"]: each["port"] for each in known.get("Service", "broker")["spec"]["ports"]}
    assert cloud.broker.host == "broker"
    assert ports == {"mqtts": cloud.broker.port}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_selects_pods_selects_some_and_names_ports_they_have(
    built: Callable[[str], Built], overlay: str
) -> None:
    known = built(overlay)
    for each in known.of("Service"):
        (pod,) = known.chosen({"matchLabels": each["spec"]["selector"]})
        for port in each["spec"]["ports"]:
            wanted = port.get("targetPort", port["port"])
            assert wanted in {*pod.ports, *pod.ports.values()}, each["metadata"]["name"]
    for each in known.of("PodDisruptionBudget"):
        (pod,) = known.chosen(each["spec"]["selector"])
        least = each["spec"].get("minAvailable", 0)
        assert pod.workload["spec"].get("replicas", 2) > least, "it would let nobody drain a node"
    for pod in known.pods.values():
        assert known.chosen(pod.workload["spec"]["selector"]) == [pod]
        for rule in pod.spec.get("topologySpreadConstraints", []):
            assert known.chosen(rule["labelSelector"]) == [pod]
        probes = [value for key, value in pod.container.items() if key.endswith("Probe")]
        assert {probe.get("tcpSocket", probe.get("httpGet"))["port"] for probe in probes} <= set(pod.ports)


def allowed(known: Built, source: Pod | str, target: Pod) -> set[str]:
    """Return the ports of a pod that another one reaches, or anybody of a namespace; by name."""
    policies = [each["spec"] for each in known.of("NetworkPolicy")]
    into = {
        port["port"]
        for spec in policies if target in known.chosen(spec["podSelector"])
        for rule in spec.get("ingress", []) if met(known, rule.get("from"), source)
        for port in rule.get("ports", [{"port": name} for name in target.ports])
    }  # fmt: skip
    if isinstance(source, str):
        return into
    out = {
        port["port"]
        for spec in policies if source in known.chosen(spec["podSelector"])
        for rule in spec.get("egress", []) if met(known, rule["to"], target)
        for port in rule.get("ports", [{"port": name} for name in target.ports])
    }  # fmt: skip
    return into & out


def met(known: Built, peers: list[Object] | None, other: Pod | str) -> bool:
    """Whether somebody is among the peers of a rule; anybody is where none are named."""
    if peers is None:
        return True
    for peer in peers:
        space = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        if isinstance(other, str):
            if space == other:
                return True
        elif space is None and "podSelector" in peer and other in known.chosen(peer["podSelector"]):
            return True
    return False


def test_pods_reach_each_other_where_they_must_and_nowhere_else(built: Callable[[str], Built]) -> None:
    known = built("everything")
    pods = known.pods
    broker, store, gallery, filer = (pods[name] for name in ("broker", "store", "gallery", "seaweed-filer"))
    assert allowed(known, broker, broker) == {"routes", "mqtts"} - {"mqtts"}
    assert allowed(known, store, broker) == {"mqtts", "nats"}
    assert allowed(known, gallery, broker) == set()
    assert allowed(known, "elsewhere", broker) == {"mqtts"}
    for pod in (store, gallery):
        assert allowed(known, "elsewhere", pod) == set()
        assert allowed(known, broker, pod) == set()
        assert allowed(known, pod, filer) == {"s3"}
        assert allowed(known, pod, pods["seaweed-volume"]) == set()
    assert allowed(known, "elsewhere", filer) == set()
    assert allowed(known, broker, filer) == set()
    assert allowed(known, "ingress-nginx", gallery) == {"page"}
    assert allowed(known, filer, pods["seaweed-volume"]) == {"http", "grpc"}
    for pod in (broker, store, gallery):
        assert "metrics" in allowed(known, "monitoring", pod)
    everybody = known.get("NetworkPolicy", "nobody")["spec"]
    assert everybody == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for each in known.of("NetworkPolicy"):
        assert known.chosen(each["spec"]["podSelector"]), each["metadata"]["name"]


def test_the_bucket_on_the_internet_is_reached_by_those_who_need_it(built: Callable[[str], Built]) -> None:
    known = built("production")
    policy = known.get("NetworkPolicy", "bucket")["spec"]
    assert known.chosen(policy["podSelector"]) == [known.pods["gallery"], known.pods["store"]]
    (rule,) = policy["egress"]
    assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]
    assert rule["ports"] == [{"port": 443}]


def metrics_in(text: str) -> Iterator[str]:
    return (found.group() for found in re.finditer(r"facerelay_\w+", text))


def test_stores_are_scaled_by_figures_that_they_serve() -> None:
    known = {each.name: each for each in CATALOGUE if "store" in each.roles}
    parts = [MANIFESTS / "components" / name for name in ("autoscale", "keda")]
    texts = {path: path.read_text() for part in parts for path in part.glob("*.yaml")}
    for path, text in texts.items():
        for name in metrics_in(text):
            assert name in known, f"{path.name}: {name}"
    for label in ("site", "camera"):
        assert label in known["facerelay_faces_waiting"].labels
    rules = yaml.safe_load(texts[parts[0] / "adapter-rules.yaml"])["externalRules"]
    (scaler,) = yaml.safe_load_all(texts[parts[0] / "scaler.yaml"])
    wanted = [each["external"]["metric"]["name"] for each in scaler["spec"]["metrics"]]
    assert wanted == [each["name"]["as"] for each in rules]


def test_what_an_edge_without_a_link_holds_calls_for_no_store(tmp_path: Path) -> None:
    """Prometheus itself computes what the rules of the adapter, and KEDA's queries, say."""
    parts = MANIFESTS / "components"
    rules = yaml.safe_load((parts / "autoscale" / "adapter-rules.yaml").read_text())["externalRules"]
    adapter = [each["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="facerelay"') for each in rules]
    scaled = yaml.safe_load((parts / "keda" / "scaler.yaml").read_text())["spec"]["triggers"]
    assert [each["metadata"]["query"] for each in scaled] == adapter
    series = {
        'facerelay_intake_pending{namespace="facerelay",pod="a"}': 700,
        'facerelay_intake_pending{namespace="facerelay",pod="b"}': 650,
        'facerelay_intake_pending{namespace="other",pod="b"}': 9_000,
        'facerelay_faces_waiting{namespace="facerelay",pod="a",site="door",camera="x"}': 30,
        'facerelay_faces_waiting{namespace="facerelay",pod="b",site="door",camera="x"}': 40,
        'facerelay_faces_waiting{namespace="facerelay",pod="b",site="door",camera="y"}': 5,
        'facerelay_faces_waiting{namespace="facerelay",pod="b",site="away",camera="x"}': 100_000,
        'facerelay_books_age_seconds{namespace="facerelay",pod="a",site="door"}': 7_000,
        'facerelay_books_age_seconds{namespace="facerelay",pod="b",site="door"}': 4,
        'facerelay_books_age_seconds{namespace="facerelay",pod="b",site="away"}': 3_600,
    }
    wanted = (700, 45)
    asked = [
        {"expr": expr, "eval_time": "1m", "exp_samples": [{"labels": "{}", "value": value}]}
        for expr, value in zip(adapter, wanted, strict=True)
    ]
    given = [{"series": name, "values": f"{value}x4"} for name, value in series.items()]
    test = {"tests": [{"interval": "30s", "input_series": given, "promql_expr_test": asked}]}
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    command = [need("promtool"), "test", "rules", str(tmp_path / "test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_scaler_and_the_overlay_do_not_both_say_how_many_stores(built: Callable[[str], Built]) -> None:
    for overlay, kind in (("production", "HorizontalPodAutoscaler"), ("everything", "ScaledObject")):
        known = built(overlay)
        target = known.get(kind, "store")["spec"]["scaleTargetRef"]
        assert "replicas" not in known.get("Deployment", target["name"])["spec"]
    assert built("one-node").get("Deployment", "store")["spec"]["replicas"] == 2


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_no_more_than_it_needs(built: Callable[[str], Built], overlay: str) -> None:
    for pod in built(overlay).pods.values():
        spec, container = pod.spec, pod.container
        whole: dict[str, Any] = spec["securityContext"]
        assert whole["runAsNonRoot"]
        assert whole["runAsUser"] == whole["runAsGroup"] == whole["fsGroup"] == USER
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert {"memory", "cpu", "ephemeral-storage"} <= container["resources"]["requests"].keys()
        assert {"memory", "ephemeral-storage"} <= container["resources"]["limits"].keys()
        assert not any("hostPath" in volume for volume in spec["volumes"])
        assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_the_images_are_those_of_our_dockerfile(built: Callable[[str], Built]) -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert f"USER {USER}:{USER}" in text
    targets = re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)
    for pod in built("production").pods.values():
        name = pod.container["image"].rpartition("/")[2].partition(":")[0]
        assert name.removeprefix("facerelay-") in targets
        assert "command" not in pod.container
        assert "args" not in pod.container
    for pod in built("one-node").pods.values():
        assert ":latest" not in pod.container["image"]
        assert ":" in pod.container["image"], "it would be looked for in a registry at each start"


def test_no_key_can_come_into_git(built: Callable[[str], Built]) -> None:
    for overlay in ("production", "one-node"):
        ours = MANIFESTS / "overlays" / overlay / "enrolled" / "trust" / "store.key"
        done = subprocess.run(["git", "-C", str(ROOT), "check-ignore", "-q", str(ours)], check=False)
        assert done.returncode == 0, f"{ours} is not ignored"
    for path in MANIFESTS.rglob("*.yaml"):
        if "enrolled" not in path.parts:
            assert all(
                each["kind"] != "Secret" for each in yaml.safe_load_all(path.read_text()) if "kind" in each
            )
    named = {each["metadata"]["name"].rpartition("-")[0] for each in built("production").of("Secret")}
    assert named >= {"authority", "trust-broker", "trust-store", "trust-gallery", "bucket-key"}
    for each in built("production").of("Secret"):
        assert "authority.key" not in each["data"], "what makes machines must not be in the cluster"
