"""k8s/ for real, by the commands of docs/kubernetes.md and in their order, on a Kubernetes of one node.

make test-kubernetes
"""

from __future__ import annotations

import json

import pytest

from tests.cluster.page import sections

from .deployed import ROLES, Deployed
from .node import Node

PAGE = "docs/kubernetes.md"
READY_S, RISING_S, NEXT_VERSION_S = 300.0, 300.0, 60.0
#: LunarLander at random: about -200.
_RISEN = 40.0
_WITHOUT_GRAFANA = (*ROLES, "kafka", "prometheus", "setup")
#: A pod of somebody else's, as much as the namespace lets in.
_STRANGER = """
apiVersion: v1
kind: Pod
metadata: {name: stranger}
spec:
  securityContext: {runAsNonRoot: true, runAsUser: 10001, seccompProfile: {type: RuntimeDefault}}
  automountServiceAccountToken: false
  containers:
    - name: stranger
      image: headrace/actor:dev
      command: [python, -c, "import time; time.sleep(3600)"]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def commands() -> dict[str, list[str]]:
    return sections(PAGE)


@pytest.fixture(scope="module")
def run(node: Node) -> Deployed:
    return Deployed(node)


@pytest.mark.timeout(7200)
def test_start(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    run.provide_volumes()
    apply, *wait = commands["Start"]
    node.run(apply)
    run.kubectl("scale deployment grafana --replicas 0")  # its image has no stand-in
    for line in wait:
        node.run(line, timeout_s=620)
    node.wait(lambda: run.all_ready(_WITHOUT_GRAFANA), "every pod ready", READY_S)
    assert len(run.pods("actor")) == 4
    (learner,) = run.pods("learner")
    assert learner["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_return_rises(run: Deployed) -> None:
    returns: list[float] = []

    def risen() -> bool:
        now = run.value("headrace_learner_episode_return")
        returns.extend([now] if now else [])  # 0: no episode has ended yet
        return bool(returns) and returns[-1] > min(returns) + _RISEN

    took_s = run.node.wait(risen, "a rising return", RISING_S)
    print(f"the return rose from {min(returns):.0f} to {returns[-1]:.0f} within {took_s:.0f} s")


def test_watch(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    pods, logs, forward, status = commands["Watch"]
    assert "learner-0" in node.run(pods)
    assert all(json.loads(line)["role"] for line in node.run(logs).splitlines())
    with node.meanwhile(forward.removesuffix("&")):
        node.wait(lambda: node.holds("curl -s http://127.0.0.1:9090/-/ready"), "the forwarded port", 30)
        # Prometheus looks at each pod in its turn, once DNS, which remembers its answers a while, names it: what
        # has just come up it has not seen yet.
        awaited = {"learner-0", "paramserver-0", "evaluator-0", *(f"actor-{index}" for index in range(4))}
        node.wait(lambda: awaited <= set(node.run(status).split()), f"{sorted(awaited)} in the status", 90)
    assert "up to 16 workers can be busy" in run.kubectl("logs statefulset/learner")


def test_scale(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    up, down = commands["Scale"]
    node.run(up)
    node.wait(lambda: run.busy_actors() == 6, "6 actors that collect", 120)
    node.run(down)
    node.wait(lambda: run.busy_actors() == 2, "2 actors that collect", 120)
    run.seconds_to_new_versions(NEXT_VERSION_S)


def test_a_learner_pod_that_is_deleted_goes_on_from_its_volume(node: Node, run: Deployed) -> None:
    before, epoch = run.version(), run.epoch()
    (old,) = run.pods("learner")
    run.kubectl("delete pod learner-0")
    (new,) = run.pods("learner")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    took_s = run.seconds_to_next_life(epoch, before, 120)
    print(f"learner deleted: new versions after {took_s:.1f} s")
    said = run.kubectl("exec learner-0 -- cat /runs/run/metrics.jsonl")
    rows = [json.loads(line) for line in said.splitlines()]
    first = next(row for row in rows if row["learner_epoch"] == rows[-1]["learner_epoch"])
    assert first["version"] >= before


def test_a_learner_that_is_killed_comes_back(node: Node, run: Deployed) -> None:
    before, epoch = run.version(), run.epoch()
    run.kubectl("exec learner-0 -- python -c 'import os, signal; os.kill(1, signal.SIGTERM)'")
    took_s = run.seconds_to_next_life(epoch, before, 120)
    print(f"learner ended: new versions after {took_s:.1f} s")
    (pod,) = run.pods("learner")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1


def test_upgrade(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    before, epoch = run.version(), run.epoch()
    for line in commands["Upgrade"]:
        node.run(line, timeout_s=320)
    run.kubectl("scale deployment grafana --replicas 0")
    node.wait(lambda: run.all_ready(_WITHOUT_GRAFANA), "every pod ready", READY_S)
    run.seconds_to_next_life(epoch, before, 120)


def test_stop_and_go_on(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    before, epoch = run.version(), run.epoch()
    stop, start = commands["Stop and go on"]
    node.run(stop)
    node.wait(lambda: not run.pods("learner"), "no learner", 120)
    node.run(start)
    run.seconds_to_next_life(epoch, before, 120)


def test_back_up(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    copy, secrets = commands["Back up"]
    folder = node.folder / "backup"
    node.run(copy.replace(" backup", f" {folder}"))
    assert list((folder / "checkpoints").glob("ckpt-*"))
    node.run(secrets.replace("secrets.yaml", str(node.folder / "secrets.yaml")))


def test_setup_run_again_changes_nothing(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    def held() -> dict[str, dict[str, str]]:
        secrets = node.get("secrets --namespace headrace")["items"]
        return {secret["metadata"]["name"]: secret["data"] for secret in secrets}

    before = held()
    assert len(before) == 7
    for line in commands["Secure"]:
        node.run(line, timeout_s=620)
    run.kubectl("scale deployment grafana --replicas 0")
    assert "every secret is there already" in run.kubectl("logs job/setup")
    assert held() == before
    run.seconds_to_new_versions(120)


def test_setup_may_fill_its_secrets_and_nothing_else(node: Node) -> None:
    ask = "kubectl auth can-i --as system:serviceaccount:headrace:setup --namespace headrace"
    for verb, what, may in (
        ("patch", "secret/learner-secrets", True), ("get", "secret/ca-secrets", True), ("list", "secrets", False),
        ("get", "secret/another", False), ("create", "secrets", False), ("delete", "secret/ca-secrets", False),
        ("create", "pods", False),
    ):  # fmt: skip
        assert node.holds(f"{ask} {verb} {what}") == may, (verb, what)


def test_network_policies_are_enforced(node: Node, run: Deployed) -> None:
    elsewhere = Deployed(node, "default")
    for where in (run, elsewhere):
        node.run(f"kubectl --namespace {where.namespace} apply --filename -", stdin=_STRANGER)
        where.kubectl("wait pod/stranger --for condition=Ready --timeout 60s")
    actor = run.pods("actor")[0]["metadata"]["name"]
    assert run.reaches(actor, "kafka", 9092)
    assert run.reaches(actor, "paramserver", 50051)
    for who in (run, elsewhere):
        assert not who.reaches("stranger", "kafka.headrace.svc.cluster.local", 9092)
        assert not who.reaches("stranger", "paramserver.headrace.svc.cluster.local", 50051)
        assert not who.reaches("stranger", "prometheus.headrace.svc.cluster.local", 9090)
    assert not run.reaches(actor, "kafka-setup", 9094)
    assert not run.reaches(actor, "prometheus", 9090)
    assert not run.reaches(actor, "kubernetes.default.svc.cluster.local", 443)
    assert elsewhere.reaches("stranger", "kubernetes.default.svc.cluster.local", 443)
    for where in (run, elsewhere):
        where.kubectl("delete pod stranger --grace-period 1")


def test_the_namespace_is_restricted(node: Node) -> None:
    privileged = _STRANGER.replace("allowPrivilegeEscalation: false", "privileged: true")
    said = node.refused("kubectl --namespace headrace apply --filename -", stdin=privileged)
    assert 'violates PodSecurity "restricted' in said


def test_what_a_role_does_not_know(node: Node, run: Deployed) -> None:
    actor = run.pods("actor")[0]["metadata"]["name"]
    assert run.kubectl(f"exec {actor} -- ls /secrets").split() == [
        "ca.crt", "client.crt", "client.key", "kafka.password", "subscribe.token",
    ]  # fmt: skip
    assert "Read-only file system" in node.refused(f"kubectl --namespace headrace exec {actor} -- touch /here")
    assert "No such file" in node.refused(
        f"kubectl --namespace headrace exec {actor} -- ls /var/run/secrets/kubernetes.io/serviceaccount"
    )


def test_a_second_run_beside_it(node: Node, run: Deployed, commands: dict[str, list[str]]) -> None:
    two = Deployed(node, "headrace-two")
    run.kubectl("scale deployment actor --replicas 0")  # two runs at once are much for two cores
    run.kubectl("scale statefulset learner --replicas 0")
    two.provide_volumes()
    apply, delete = (line for line in commands["Variants"] if "second-run" in line)
    node.run(apply)
    two.kubectl("scale deployment grafana --replicas 0")
    two.kubectl("scale deployment actor --replicas 2")
    node.wait(lambda: two.all_ready(_WITHOUT_GRAFANA), "every pod of the second run ready", READY_S)
    node.wait(lambda: two.version() > 3, "versions of the second run", 120)
    node.run(delete, timeout_s=300)


def test_tear_down(node: Node, commands: dict[str, list[str]]) -> None:
    for line in commands["Tear down"]:
        node.run(line, timeout_s=300)
    assert not node.holds("kubectl get namespace headrace")


def test_kafka_with_three_nodes_bears_the_loss_of_one(node: Node, run: Deployed) -> None:
    run.provide_volumes()
    node.run("kubectl apply -k k8s/overlays/kafka-3")
    run.kubectl("scale deployment grafana --replicas 0")
    run.kubectl("scale deployment actor --replicas 2")  # as much as two cores are asked for
    node.wait(lambda: run.all_ready(_WITHOUT_GRAFANA) and len(run.pods("kafka")) == 3, "every pod ready", READY_S)
    node.wait(lambda: run.version() > 3, "versions", 180)
    run.kubectl("delete pod kafka-1")
    took_s = run.seconds_to_new_versions(NEXT_VERSION_S)
    print(f"one of three Kafka nodes deleted: new versions after {took_s:.1f} s")
    node.wait(lambda: run.all_ready(_WITHOUT_GRAFANA), "every pod ready again", READY_S)
    node.run("kubectl delete -k k8s/overlays/kafka-3", timeout_s=300)
