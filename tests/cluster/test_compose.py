"""docker-compose.yml for real, by the commands of docs/cluster.md and in their order: started, watched, scaled, killed,
upgraded, its log lost, its certificates renewed, an environment brought along, taken down.

    make test-cluster
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.dashboards.board import targets

from .cluster import Cluster
from .page import block, sections

#: Every figure that people are promised, in seconds.
HEALTHY_S, RISING_S, NEXT_VERSION_S = 120.0, 180.0, 30.0
#: LunarLander at random: about -200.
_RISEN = 40.0
_ROLES = ("actor", "evaluator", "learner", "paramserver")
_RUNNING = (*_ROLES, "kafka", "prometheus")

#: Of each test; images may have to be built before the first.
pytestmark = pytest.mark.timeout(900, func_only=True)


@pytest.fixture(scope="module")
def began_s() -> dict[str, float]:
    return {}


def test_start(cluster: Cluster, began_s: dict[str, float]) -> None:
    build, up = sections()["Start"][-2:]
    cluster.run(build, timeout_s=1800)
    began_s["up"] = time.monotonic()
    cluster.run(up)
    took_s = time.monotonic() - began_s["up"]
    states = {c["Service"]: c["Health"] for c in cluster.containers() if c["State"] == "running"}
    assert {service: states.get(service) for service in _RUNNING} == dict.fromkeys(_RUNNING, "healthy")
    assert len(cluster.containers("actor")) == 4
    print(f"all healthy after {took_s:.0f} s")
    assert took_s < HEALTHY_S


def test_the_overlay_for_a_gpu_fits(cluster: Cluster) -> None:
    (line,) = block("A GPU for the learner", "").splitlines()
    said = cluster.run(line.replace("up --detach", "config"))
    assert "driver: nvidia" in said
    assert "target: learner-cuda" in said


def test_the_return_rises(cluster: Cluster, began_s: dict[str, float]) -> None:
    def risen() -> bool:
        means = [row["return_mean"] for row in cluster.rows if row["return_mean"] is not None]
        return len(means) > 5 and max(means[-3:]) > means[0] + _RISEN

    cluster.wait(risen, "a rising return", began_s["up"] + RISING_S - time.monotonic())
    print(f"a rising return after {time.monotonic() - began_s['up']:.0f} s")


def test_watch(cluster: Cluster) -> None:
    cluster.wait(lambda: cluster.roles_up() == 7, "7 roles scraped", 60)
    by_prometheus, with_run, evaluate, inside, logs = (cluster.run(line) for line in sections()["Watch"])
    for said in (by_prometheus, with_run, inside):
        assert said.count("actor-") == 4
        assert {f"{role}-0" for role in _ROLES} <= set(said.split())
        assert "dead" not in said
    assert "of 500,000,000 steps" in with_run
    assert "over 10 greedy episodes" in evaluate
    assert "up to 16 workers can be busy" in cluster.run("docker compose logs learner")
    assert logs.strip()


def test_scale(cluster: Cluster) -> None:
    up, down, back = sections()["Scale"]
    cluster.run(up)
    cluster.wait(lambda: cluster.busy_actors() == 6, "6 actors that collect", 60)
    cluster.run(down)
    cluster.wait(lambda: cluster.busy_actors() == 1, "1 actor that collects", 60)
    cluster.wait(lambda: cluster.roles_up() == 4, "targets that are gone, forgotten", 30)
    assert status(cluster).startswith("actors too few")
    cluster.wait(lambda: first_row(cluster) == ["actors too few"], "few actors named by the dashboard", 90)
    assert cluster.seconds_to_new_versions(NEXT_VERSION_S) < NEXT_VERSION_S
    cluster.run(back)
    cluster.wait(lambda: cluster.busy_actors() == 4, "4 actors that collect", 60)


def test_status_names_a_learner_that_is_slowed(cluster: Cluster) -> None:
    (learner,) = cluster.containers("learner")
    cluster.engine.docker("update", "--cpus=0.15", learner["ID"])
    try:
        cluster.wait(lambda: status(cluster).startswith("learner too slow"), "the slowed learner named", 60)
        cluster.wait(lambda: first_row(cluster) == ["learner too slow"], "and by the dashboard", 90)
    finally:
        cluster.engine.docker("update", "--cpus=2", learner["ID"])


def status(cluster: Cluster) -> str:
    return cluster.run("headrace status --url http://127.0.0.1:9090 --window 15")


def first_row(cluster: Cluster) -> list[str]:
    """What the dashboard's panel shows."""
    (expression,) = (target.expression for target in targets() if target.panel == "Bottleneck")
    return [labels["verdict"] for labels, _ in cluster.query(expression)]


@pytest.mark.parametrize("service", ["learner", "paramserver", "kafka"])
def test_a_part_that_is_killed_comes_back(cluster: Cluster, service: str) -> None:
    cluster.seconds_to_new_versions(60)
    stood_s = cluster.standstill_of_a_kill(service, 120)
    print(f"{service} killed: no version for {stood_s:.1f} s")
    assert stood_s < NEXT_VERSION_S
    cluster.wait(lambda: cluster.busy_actors() == 4, "4 actors that collect", 90)


def test_a_role_sees_its_own_secrets_only(cluster: Cluster) -> None:
    seen = {role: cluster.run(f"docker compose exec {role} ls /secrets").split() for role in _ROLES}
    assert seen == {
        "actor": ["ca.crt", "client.crt", "client.key", "kafka.password", "subscribe.token"],
        "evaluator": ["ca.crt", "client.crt", "client.key", "subscribe.token"],
        "learner": ["ca.crt", "client.crt", "client.key", "kafka.password", "publish.token"],
        "paramserver": ["ca.crt", "publish.token", "server.crt", "server.key", "subscribe.token"],
    }
    for role in _ROLES:
        assert "Read-only file system" in cluster.run(f"docker compose exec {role} touch /here 2>&1 || true")


def test_the_listener_for_setup_is_reached_by_setup_only(cluster: Cluster) -> None:
    (kafka,) = cluster.containers("kafka")
    networks = json.loads(cluster.engine.docker("inspect", kafka["ID"]))[0]["NetworkSettings"]["Networks"]
    addresses = [network["IPAddress"] for network in networks.values()]
    assert len(addresses) == 2
    look = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    for address in addresses:
        ask = f"docker compose exec actor python -c '{look}' {address}"
        assert "Error" in cluster.run(f"{ask} 9094 2>&1 || true")
    cluster.run(f"docker compose exec actor python -c '{look}' kafka 9092")


def test_upgrade(cluster: Cluster) -> None:
    before = cluster.rows[-1]
    build, learner, others = sections()["Upgrade"]
    cluster.run(build, timeout_s=1800)
    cluster.run(learner)
    cluster.wait(lambda: cluster.rows[-1]["learner_epoch"] > before["learner_epoch"], "the learner's next life", 60)
    first = next(row for row in cluster.rows if row["learner_epoch"] > before["learner_epoch"])
    assert first["version"] >= before["version"], "SIGTERM lost versions"
    cluster.run(others)
    cluster.seconds_to_new_versions(90)


def test_stop_and_go_on(cluster: Cluster) -> None:
    stop, start = sections()["Stop and go on"]
    cluster.run(stop)
    before = cluster.rows[-1]
    cluster.run(start)
    cluster.seconds_to_new_versions(90)
    assert cluster.rows[-1]["version"] > before["version"]


def test_secure(cluster: Cluster) -> None:
    renew, users, restart = sections()["Secure"]
    assert "everything is there already" in cluster.run(renew)
    assert "users learner, actor" in cluster.run(users)
    cluster.run(restart)
    cluster.seconds_to_new_versions(90)


def test_back_up_and_a_log_that_is_lost(cluster: Cluster) -> None:
    copy, *lose_and_go_on = sections()["Back up"]
    cluster.run(copy)
    assert list((cluster.folder / "backup" / "checkpoints").glob("ckpt-*"))
    for line in lose_and_go_on:
        cluster.run(line.replace("headrace_kafka", "headrace-test_kafka"))
    cluster.seconds_to_new_versions(120)
    lost = [json.loads(line) for line in (cluster.run_dir / "history.jsonl").read_text().splitlines()]
    assert any(change["key"] == "log" for change in lost)


def test_an_environment_of_ones_own(cluster: Cluster) -> None:
    mine = cluster.folder / "mine"
    mine.mkdir()
    (mine / "Dockerfile").write_text(block("Environments of your own", "Dockerfile"))
    (mine / "mine.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Pole-v0', lambda **kwargs: CartPoleEnv(**kwargs), max_episode_steps=500)\n"
    )
    for line in sections()["Environments of your own"]:
        cluster.run(line, timeout_s=600)
    config = (cluster.folder / "deploy/compose/lunarlander.toml").read_text()
    config = config.replace("LunarLander-v3", "mine:Pole-v0").replace('id = "lunarlander"', 'id = "mine"')
    (cluster.folder / "mine.toml").write_text(config)
    cluster.environment |= {
        "HEADRACE_CONFIG": "./mine.toml",
        "HEADRACE_RUN": "mine",
        "HEADRACE_ACTOR_IMAGE": "mine/actor",
        "HEADRACE_LEARNER_IMAGE": "mine/learner",
    }
    cluster.run("docker compose up --detach")
    rows = cluster.folder / "runs" / "mine" / "metrics.jsonl"
    cluster.wait(lambda: rows.exists() and rows.read_text().count("\n") > 3, "versions of a run of one's own", 90)


def test_tear_down(cluster: Cluster) -> None:
    for line in sections()["Tear down"]:
        cluster.run(line)
    assert cluster.leftovers() == ""
    cluster.run("docker image rm mine/actor mine/learner")
    assert Path(cluster.run_dir / "checkpoints").is_dir()
