"""docker-compose.yml without an engine: names, ports, commands, secrets and rights fit each other and the rest of the
project. `make test-cluster` runs it."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from headrace.common.weights.address import split
from headrace.launch.cli import COMMANDS
from headrace.launch.load import load
from headrace.launch.setup import files
from headrace.launch.setup.files import Names
from headrace.observe.health import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "deploy" / "compose" / "lunarlander.toml"
ROLES = ("actor", "evaluator", "learner", "paramserver")
#: What mounts more than its own secrets: who makes them, and who gives the users at Kafka their passwords.
MAKERS = ("secrets", "setup")


def read(name: str) -> dict[str, Any]:
    """A compose file with every variable at its default."""
    text = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", (ROOT / name).read_text())
    assert "${" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


COMPOSE = read("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def arguments(service: str) -> argparse.Namespace:
    """The command of a service of ours, parsed by the command line's own parser."""
    command = SERVICES[service]["command"]
    name, *words = shlex.split(command) if isinstance(command, str) else command
    parser = argparse.ArgumentParser(allow_abbrev=False)
    import_module(f"headrace.{COMMANDS[name][0]}").add_arguments(parser)
    return parser.parse_args(words)


def mounts(service: str) -> dict[str, str]:
    """Where a service finds what: target -> volume or path."""
    found = {}
    for mount in SERVICES[service].get("volumes", ()):
        source, target = (mount["source"], mount["target"]) if isinstance(mount, dict) else mount.split(":")[:2]
        found[target] = source
    return found


@pytest.mark.parametrize("role", ROLES)
def test_commands_are_of_ours_and_metrics_are_where_they_are_looked_for(role: str) -> None:
    args = arguments(role)
    assert args.metrics_port == urlsplit(DEFAULT).port
    assert args.metrics_host == "0.0.0.0"
    assert mounts(role)[args.config] == f"./{CONFIG.relative_to(ROOT)}"
    if args.run_dir is not None:
        assert mounts(role)[str(args.run_dir)] == f".{args.run_dir}"
        assert args.run_dir in arguments("secrets").own


def test_prometheus_asks_every_role() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    (ours,) = [job for job in config["scrape_configs"] if job["job_name"] == "headrace"]
    (found,) = ours["dns_sd_configs"]
    assert sorted(found["names"]) == sorted(ROLES)
    assert found["port"] == urlsplit(DEFAULT).port
    networks = set(SERVICES["prometheus"]["networks"])
    assert all(networks & set(SERVICES[role]["networks"]) for role in ROLES)


def test_addresses_of_the_config_are_services() -> None:
    config = load(str(CONFIG))
    host, _ = split(config.weights.address)
    assert host == "paramserver"
    broker = urlsplit(config.transport.url)
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert f"CLIENTS://{broker.hostname}:{broker.port}" in listeners
    assert f"SETUP://{arguments('setup').admin}" in listeners
    assert SERVICES["kafka"]["networks"]["setup"]["aliases"] == [arguments("setup").admin.partition(":")[0]]
    names = arguments("secrets")
    assert (names.paramserver_name, names.kafka_name) == (None, None)  # the defaults are these services' names


def test_a_role_mounts_its_own_secrets_and_they_are_what_it_asks_for(tmp_path: Path) -> None:
    files.make(tmp_path, Names(("paramserver",), ("kafka",)))
    made = {folder.name: {file.name for file in folder.iterdir()} for folder in tmp_path.iterdir()}
    assert {path.removeprefix("/secrets/") for path in mounts("secrets") if path != "/runs"} == set(made)
    for service in (name for name in SERVICES if name not in MAKERS):
        secrets = {target: source for target, source in mounts(service).items() if source.startswith("secrets")}
        assert secrets in ({}, {"/secrets": f"secrets-{service}"}), service
    weights = load(str(CONFIG)).weights.model_dump(mode="json")
    server = ("tls_cert", "tls_key", "tls_client_ca", "publish_token_file", "token_file")
    client = ("tls_ca", "tls_client_cert", "tls_client_key")
    for role, keys in (
        ("paramserver", server),
        ("learner", (*client, "publish_token_file")),
        ("actor", (*client, "token_file")),
        ("evaluator", (*client, "token_file")),
    ):
        asked = {weights[key] for key in keys}
        asked |= {v for v in SERVICES[role].get("environment", {}).values() if v.startswith("/")}
        assert {path.removeprefix("/secrets/") for path in asked} == made[role], role


def test_the_learner_and_the_actors_are_other_users_at_kafka() -> None:
    users = {role: SERVICES[role].get("environment", {}).get("KAFKA_SASL_USERNAME") for role in ROLES}
    assert users == {"actor": "actor", "learner": "learner", "evaluator": None, "paramserver": None}
    shared = set(SERVICES["setup"]["networks"]) & set(SERVICES["kafka"]["networks"])
    assert [name for name, service in SERVICES.items() if shared & set(service.get("networks", ()))] == [
        "kafka",
        "setup",
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_has_more_rights_than_needed(service: str) -> None:
    has = SERVICES[service]
    assert has["cap_drop"] == ["ALL"]
    assert has["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in has
    assert has.get("read_only") or service == "kafka"
    assert "container_name" not in has
    if service != "secrets":
        assert not str(has.get("user", "")).startswith("0")
        assert "cap_add" not in has
    for port in has.get("ports", ()):
        assert port.startswith("127.0.0.1:")
    if service not in ("prometheus", "grafana", "secrets"):
        assert all(COMPOSE["networks"][network].get("internal") for network in has["networks"])


def test_no_password_is_written_down() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or value.startswith("/secrets/"), key


def test_images_are_targets_of_the_dockerfile() -> None:
    targets = set(re.findall(r"^FROM runtime AS (\S+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE))
    gpu = read("deploy/compose/compose.gpu.yml")["services"]
    for service in (*SERVICES.values(), *gpu.values()):
        image = service["image"]
        if image.startswith("headrace/"):
            assert image.removeprefix("headrace/").removesuffix(":dev") in targets
            assert service.get("build", {}).get("target") in (None, image[len("headrace/") : -len(":dev")])
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", image), f"{image}: name a version"
    assert gpu.keys() <= SERVICES.keys()


def test_there_is_room_for_more_actors_than_start() -> None:
    config = load(str(CONFIG))
    assert config.actors.processes == SERVICES["actor"]["scale"]
    assert config.leases_at_once >= 4 * config.workers
