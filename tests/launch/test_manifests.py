"""k8s/, as far as it can be held without a cluster: names, labels, ports, commands, secrets and rights fit each other,
docker-compose.yml and the rest of the project. `make test-kubernetes` runs it."""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from kafka.admin import ResourceType

from headrace.common.metrics_table import ACTOR_PHASES, LEARNER_PHASES, TABLE
from headrace.common.transport import Limits, for_run, kafka_topics
from headrace.common.transport.kafka_address import parse
from headrace.common.weights.address import split
from headrace.launch.cli import COMMANDS
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.launch.setup import files
from headrace.launch.setup.files import Names
from headrace.launch.setup.kafka import rights
from headrace.launch.setup.kubernetes import AFTER_KAFKA, BEFORE_KAFKA
from headrace.observe.health import DEFAULT
from tests.launch import manifests, test_compose_file
from tests.launch.manifests import COMPONENT, OVERLAYS, ROOT, WHOLE, container, environment, of_kind, workloads

VERSIONS = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34")
#: Kinds of operators', which plain Kubernetes does not know.
_OTHERS = ("keda.sh/", "kafka.strimzi.io/", "monitoring.coreos.com/")
ROLES = ("actor", "evaluator", "learner", "paramserver")
TEMPLATES = workloads(WHOLE)


def objects(name: str) -> tuple[manifests.Object, ...]:
    return tuple(WHOLE) if name == "base" else manifests.overlay(name)


@functools.cache
def validate(text: str, version: str) -> None:
    """One object, once: overlays share most of theirs."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """k8s/build.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("k8s_build", ROOT / "k8s" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(workload: str) -> argparse.Namespace:
    """The command of a container of ours, parsed by the command line's own parser."""
    name, *words = container(TEMPLATES[workload])["args"]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    import_module(f"headrace.{COMMANDS[name][0]}").add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The one that roles find in their ConfigMap."""
    (tmp_path / "run.toml").write_text(of_kind(WHOLE, "ConfigMap")["run"]["data"]["run.toml"])
    return load(str(tmp_path / "run.toml"))


# --- the files -------------------------------------------------------------------------------------------------------


def test_what_is_made_is_made_from_what_is_there(build: ModuleType) -> None:
    for path, made in ((build.CONFIG, build.config_maps), (build.WHOLE, build.whole), (build.RULES, build.rules)):
        assert path.read_text() == made(), f"{path.relative_to(ROOT)} is old: make manifests"
    listed = yaml.safe_load((manifests.BASE / "kustomization.yaml").read_text())["resources"]
    assert listed == sorted(path.name for path in manifests.BASE.glob("[0-9]*.yaml"))


def test_the_top_folder_can_be_applied_anywhere() -> None:
    assert [path.name for path in (ROOT / "k8s").iterdir() if path.suffix in (".yaml", ".yml", ".json")] == [
        "headrace.yaml"
    ]
    assert not [each for each in WHOLE if each["apiVersion"].startswith(_OTHERS)]
    assert WHOLE[0]["kind"] == "Namespace"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_kubernetes_takes_every_object(name: str, version: str) -> None:
    for each in objects(name):
        if not each["apiVersion"].startswith(_OTHERS):
            validate(json.dumps(each, sort_keys=True), version)


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_every_object_is_in_its_namespace_and_there_once(name: str) -> None:
    (namespace,) = of_kind(objects(name), "Namespace")
    assert namespace == ("headrace-two" if name == "second-run" else "headrace")
    seen = [(each["kind"], each["metadata"]["name"]) for each in objects(name)]
    assert len(seen) == len(set(seen))
    assert {each["metadata"].get("namespace") for each in objects(name)} == {None, namespace}


# --- what names what -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_selectors_find_their_pods_and_no_others(name: str) -> None:
    templates = workloads(objects(name))
    for kind in ("Deployment", "StatefulSet"):
        for at, each in of_kind(objects(name), kind).items():
            wanted = each["spec"]["selector"]
            assert [w for w, t in templates.items() if manifests.matches(wanted, t["metadata"]["labels"])] == [at]
    for at, each in of_kind(objects(name), "Service").items():
        if each["spec"].get("type") == "ExternalName":
            continue
        labels = {"matchLabels": each["spec"]["selector"]}
        (found,) = [t for t in templates.values() if manifests.matches(labels, t["metadata"]["labels"])]
        ports = {port["name"]: port["containerPort"] for port in container(found)["ports"]}
        for port in each["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"], at
    for each in of_kind(objects(name), "PodDisruptionBudget").values():
        at = each["metadata"]["name"]
        assert manifests.matches(each["spec"]["selector"], templates[at]["metadata"]["labels"])
        assert of_kind(objects(name), "Deployment", "StatefulSet")[at]["spec"].get("replicas", 2) > 1, "blocks drains"
    for each in of_kind(objects(name), "StatefulSet").values():
        assert each["spec"]["serviceName"] in of_kind(objects(name), "Service")


def test_what_is_mounted_is_there_and_setup_makes_it(tmp_path: Path) -> None:
    files.make(tmp_path, Names(("paramserver",), ("kafka",)))
    made = {folder.name: {file.name for file in folder.iterdir()} for folder in tmp_path.iterdir()}
    maps, claims = of_kind(WHOLE, "ConfigMap"), set(of_kind(WHOLE, "PersistentVolumeClaim"))
    for workload, template in TEMPLATES.items():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        owned = of_kind(WHOLE, "StatefulSet").get(workload, {}).get("spec", {}).get("volumeClaimTemplates", ())
        assert {m["name"] for m in container(template)["volumeMounts"]} == {
            *volumes,
            *(c["metadata"]["name"] for c in owned),
        }
        for volume in volumes.values():
            if "secret" in volume:
                assert volume["secret"]["secretName"] == f"{workload}-secrets"
                keys = {item["key"] for item in volume["secret"]["items"]}
                assert keys == made[workload] == {item["path"] for item in volume["secret"]["items"]}
            assert "configMap" not in volume or volume["configMap"]["name"] in maps
            assert "persistentVolumeClaim" not in volume or volume["persistentVolumeClaim"]["claimName"] in claims


def test_setup_may_read_and_fill_the_secrets_and_nothing_else() -> None:
    (rule,) = of_kind(WHOLE, "Role")["setup"]["rules"]
    names = {f"{role}-secrets" for role in (*BEFORE_KAFKA, *AFTER_KAFKA)}
    assert set(rule["resourceNames"]) == names == set(of_kind(WHOLE, "Secret"))
    assert (rule["resources"], rule["verbs"]) == (["secrets"], ["get", "patch"])
    assert not any("data" in secret or "stringData" in secret for secret in of_kind(WHOLE, "Secret").values())
    with_token = [w for w, t in TEMPLATES.items() if t["spec"]["automountServiceAccountToken"]]
    assert with_token == ["setup"]
    assert not of_kind(WHOLE, "ClusterRole", "ClusterRoleBinding")


def test_images_are_targets_of_the_dockerfile_or_those_of_compose() -> None:
    others = {service["image"] for service in test_compose_file.SERVICES.values()}
    for name in ("base", *OVERLAYS):
        for image in manifests.images(objects(name)):
            if image.startswith("headrace/"):
                assert image.removeprefix("headrace/").removesuffix(":dev") in manifests.targets()
            else:
                assert image in others, image


# --- what roles are told ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_commands_are_of_ours_and_metrics_are_where_they_are_looked_for(role: str, config: Config) -> None:
    args = arguments(role)
    ports = {port["name"]: port["containerPort"] for port in container(TEMPLATES[role])["ports"]}
    assert args.metrics_port == urlsplit(DEFAULT).port == ports["metrics"]
    assert args.metrics_host == "0.0.0.0"
    assert args.stay, "what ends is started again"
    mounts = {mount["mountPath"] for mount in container(TEMPLATES[role])["volumeMounts"]}
    assert str(Path(args.config).parent) in mounts
    assert args.run_dir is None or str(Path(args.run_dir).parent) in mounts
    for probe in ("startupProbe", "livenessProbe"):
        assert container(TEMPLATES[role])[probe]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_the_addresses_of_the_config_are_services(config: Config) -> None:
    services = {
        (name, port["port"]): port["name"]
        for name, service in of_kind(WHOLE, "Service").items()
        for port in service["spec"]["ports"]
    }
    broker = urlsplit(config.transport.url)
    assert services[split(config.weights.address)] == "grpc"
    assert services[str(broker.hostname), broker.port or 0] == "clients"
    host, _, port = arguments("setup").admin.partition(":")
    assert services[host, int(port)] == "setup"
    listeners = environment(TEMPLATES["kafka"])["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert listeners == [f"CLIENTS://{broker.hostname}:{broker.port}", f"SETUP://{arguments('setup').admin}"]


def test_what_a_role_looks_for_in_its_secrets_is_there(config: Config) -> None:
    weights = config.weights.model_dump(mode="json")
    server = ("tls_cert", "tls_key", "tls_client_ca", "publish_token_file", "token_file")
    client = ("tls_ca", "tls_client_cert", "tls_client_key")
    for role, keys in (
        ("paramserver", server), ("learner", (*client, "publish_token_file")), ("actor", (*client, "token_file")),
        ("evaluator", (*client, "token_file")),
    ):  # fmt: skip
        asked = {weights[key] for key in keys}
        asked |= {value for value in environment(TEMPLATES[role]).values() if value.startswith("/")}
        (secret,) = [v["secret"] for v in TEMPLATES[role]["spec"]["volumes"] if "secret" in v]
        assert {path.removeprefix("/secrets/") for path in asked} == {item["path"] for item in secret["items"]}, role


def test_prometheus_asks_every_role() -> None:
    config = yaml.safe_load(of_kind(WHOLE, "ConfigMap")["prometheus"]["data"]["prometheus.yml"])
    (ours,) = [job for job in config["scrape_configs"] if job["job_name"] == "headrace"]
    (found,) = ours["dns_sd_configs"]
    for name in found["names"]:
        service = of_kind(WHOLE, "Service")[name]["spec"]
        assert service["selector"][COMPONENT] == name
        assert found["port"] in {port["port"] for port in service["ports"]}
        several = of_kind(WHOLE, "Deployment", "StatefulSet")[name]["spec"]["replicas"] > 1
        assert not several or service["clusterIP"] == "None", "a name for each pod"
    with_metrics = {w for w, t in TEMPLATES.items() for p in container(t).get("ports", ()) if p["name"] == "metrics"}
    assert with_metrics == set(found["names"]) == set(ROLES)


def test_kafka_is_told_the_same_as_by_compose() -> None:
    here = environment(TEMPLATES["kafka"])
    there = test_compose_file.SERVICES["kafka"]["environment"]
    differ = {key for key in here.keys() | there.keys() if here.get(key) != there.get(key)}
    # An address of each; and a folder below the volume's own.
    assert differ == {"KAFKA_LISTENERS", "KAFKA_LOG_DIRS"}
    for role in ("actor", "learner"):
        assert environment(TEMPLATES[role]) == test_compose_file.SERVICES[role]["environment"]


# --- who may do what -------------------------------------------------------------------------------------------------


def test_network_policies_allow_what_the_config_needs_and_nothing_else(config: Config) -> None:
    _, weights = split(config.weights.address)
    broker, metrics = urlsplit(config.transport.url).port or 0, urlsplit(DEFAULT).port or 0
    datasource = yaml.safe_load(of_kind(WHOLE, "ConfigMap")["grafana-datasources"]["data"]["prometheus.yml"])
    shown = urlsplit(datasource["datasources"][0]["url"])
    assert set(manifests.flows(WHOLE)) == {
        ("setup", "kafka", int(arguments("setup").admin.partition(":")[2])),
        *((role, "kafka", broker) for role in ("learner", "actor")),
        *((role, "paramserver", weights) for role in ("learner", "actor", "evaluator")),
        *(("prometheus", role, metrics) for role in ROLES),
        ("grafana", str(shown.hostname), shown.port),
    }
    deny = of_kind(WHOLE, "NetworkPolicy")["default-deny"]["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("workload", TEMPLATES)
def test_nobody_has_more_rights_than_needed(workload: str) -> None:
    pod, only = TEMPLATES[workload]["spec"], container(TEMPLATES[workload])
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert only["securityContext"]["allowPrivilegeEscalation"] is False
    assert only["securityContext"].get("readOnlyRootFilesystem") or workload == "kafka"
    assert only["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in only["resources"]["limits"]
    for key, value in environment(TEMPLATES[workload]).items():
        assert "PASSWORD" not in key or value.startswith("/secrets/"), key


def test_everything_fits_on_two_cores() -> None:
    def cores(text: str) -> float:
        return int(text[:-1]) / 1000 if text.endswith("m") else float(text)

    replicas = {
        name: each["spec"].get("replicas", 1)
        for name, each in of_kind(WHOLE, "Deployment", "StatefulSet", "Job").items()
    }
    asked = sum(cores(container(t)["resources"]["requests"]["cpu"]) * replicas[w] for w, t in TEMPLATES.items())
    assert asked <= 1.9


def test_there_is_room_for_more_actors_than_start(config: Config) -> None:
    assert of_kind(WHOLE, "Deployment")["actor"]["spec"]["replicas"] == config.actors.processes
    assert config.leases_at_once >= 4 * config.workers


# --- variants --------------------------------------------------------------------------------------------------------


def test_cpu_asks_for_no_gpu() -> None:
    assert container(TEMPLATES["learner"])["resources"]["limits"]["nvidia.com/gpu"] == 1
    learner = workloads(objects("cpu"))["learner"]
    assert "nvidia" not in json.dumps(learner)
    assert container(learner)["image"] == "headrace/learner:dev"


def test_a_second_run_is_another_run(tmp_path: Path, config: Config) -> None:
    (tmp_path / "two.toml").write_text(of_kind(objects("second-run"), "ConfigMap")["run"]["data"]["run.toml"])
    two = load(str(tmp_path / "two.toml"))
    assert (two.run.id, two.run.seed) != (config.run.id, config.run.seed)
    assert two.run.id != config.run.id
    (binding,) = of_kind(objects("second-run"), "RoleBinding").values()
    assert [subject["namespace"] for subject in binding["subjects"]] == ["headrace-two"]


def test_three_kafka_nodes_know_each_other() -> None:
    kafka = of_kind(objects("kafka-3"), "StatefulSet")["kafka"]
    told, nodes = environment(kafka["spec"]["template"]), kafka["spec"]["replicas"]
    assert told["KAFKA_CONTROLLER_QUORUM_VOTERS"] == ",".join(f"{n}@kafka-{n}.kafka:9093" for n in range(nodes))
    assert all(told[key] == str(nodes) for key in told if key.endswith("REPLICATION_FACTOR"))
    assert all(told[key] == str(nodes - 1) for key in told if key.endswith(("MIN_ISR", "INSYNC_REPLICAS")))
    assert list(told).index("POD") < list(told).index("KAFKA_ADVERTISED_LISTENERS"), "used before it is known"
    setup = container(workloads(objects("kafka-3"))["setup"])["args"]
    names = [word.partition("=")[2] for word in setup if word.startswith("--kafka-name=")]
    assert names == ["kafka", *(f"kafka-{n}.kafka" for n in range(nodes))]
    assert {("kafka", "kafka", 9093), ("kafka", "kafka", 9094)} <= set(manifests.flows(objects("kafka-3")))


def test_keda_asks_for_metrics_that_there_are(config: Config) -> None:
    (scaled,) = of_kind(objects("keda"), "ScaledObject").values()
    (trigger,) = scaled["spec"]["triggers"]
    asked = set(re.findall(r"headrace_(\w+?)\{|headrace_(\w+?)\[", trigger["metadata"]["query"]))
    named = {first or second for first, second in asked}
    assert named == {"learner_phase_seconds_total", "actor_phase_seconds_total"}
    assert named <= {metric.name for metric in TABLE}
    phases = set(re.findall(r'phase="(\w+)"', trigger["metadata"]["query"]))
    assert phases == {"wait", "lease"}
    assert phases <= {*LEARNER_PHASES, *ACTOR_PHASES}
    assert scaled["spec"]["maxReplicaCount"] == config.leases_at_once
    assert "replicas" not in of_kind(objects("keda"), "Deployment")["actor"]["spec"]


def test_the_prometheus_operator_is_told_our_alerts() -> None:
    (rule,) = of_kind(objects("monitoring"), "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    (monitor,) = of_kind(objects("monitoring"), "ServiceMonitor").values()
    services = of_kind(objects("monitoring"), "Service")
    found = [n for n, s in services.items() if manifests.matches(monitor["spec"]["selector"], s["metadata"]["labels"])]
    assert sorted(found) == sorted(ROLES)
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == ["metrics"]


def test_strimzi_is_told_the_topics_and_rights_that_setup_makes(config: Config) -> None:
    address = parse(for_run(config.transport.url, config.run.id))
    limits = Limits(config.transport.record_bytes, config.transport.queue_bytes)
    topics = of_kind(objects("strimzi"), "KafkaTopic")
    for name, wanted in kafka_topics.wanted(address, limits).items():
        told = topics[name]["spec"]
        assert told["partitions"] == wanted["num_partitions"]
        assert {key: str(value) for key, value in told["config"].items()} == wanted["configs"]
    assert len(topics) == 2
    theirs = {
        (user, acl["resource"]["type"], acl["resource"].get("name", ""), operation.upper())
        for user, each in of_kind(objects("strimzi"), "KafkaUser").items()
        for acl in each["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
    }
    ours = {
        (
            acl.principal.removeprefix("User:"),
            acl.resource_pattern.resource_type.name.lower(),
            "" if acl.resource_pattern.resource_type == ResourceType.CLUSTER else acl.resource_pattern.resource_name,
            acl.operation.name.replace("_", ""),
        )
        for acl in rights(address, f"headrace-{config.run.id}")
    }
    assert theirs == ours
