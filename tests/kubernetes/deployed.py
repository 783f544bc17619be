"""The run in the cluster, as the tests see it."""

from __future__ import annotations

import json
import shutil
import urllib.parse
from collections.abc import Sequence
from typing import Any

from .node import Node

ROLES = ("actor", "evaluator", "learner", "paramserver")
#: The claims of every variant.
_CLAIMS = ("data-kafka-0", "data-kafka-1", "data-kafka-2", "learner", "evaluator", "prometheus")


class Deployed:
    """``namespace``: where ``kubectl apply`` put it."""

    def __init__(self, node: Node, namespace: str = "headrace") -> None:
        self.node, self.namespace = node, namespace

    def kubectl(self, words: str, timeout_s: float = 120.0) -> str:
        return self.node.run(f"kubectl --namespace {self.namespace} {words}", timeout_s)

    def provide_volumes(self) -> None:
        """What a storage class would: a new volume for each claim, which is its group's as the pod asks."""
        for claim in _CLAIMS:
            self.node.holds(f"kubectl delete persistentvolume {self.namespace}-{claim} --ignore-not-found")
            path = self.node.folder / "volumes" / self.namespace / claim
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            self.node.apply(_volume(f"{self.namespace}-{claim}", self.namespace, claim, str(path)))

    def pods(self, component: str = "") -> list[dict[str, Any]]:
        selector = f"--selector app.kubernetes.io/component={component}" if component else ""
        found: list[dict[str, Any]] = self.node.get(f"pods --namespace {self.namespace} {selector}")["items"]
        return found

    def all_ready(self, components: Sequence[str]) -> bool:
        """Whether there are pods of each, and every pod is ready or has ended well."""
        pods = self.pods()
        there = {pod["metadata"]["labels"].get("app.kubernetes.io/component") for pod in pods}
        return there >= set(components) and all(_well(pod) for pod in pods)

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each sample that its Prometheus answers."""
        path = f"/api/v1/namespaces/{self.namespace}/services/prometheus:9090/proxy/api/v1/query"
        said = self.node.run(f"kubectl get --raw '{path}?{urllib.parse.urlencode({'query': expression})}'")
        return [(sample["metric"], float(sample["value"][1])) for sample in json.loads(said)["data"]["result"]]

    def value(self, expression: str) -> float | None:
        """Of the one sample; None where there is none."""
        found = self.query(expression)
        return found[0][1] if found else None

    def busy_actors(self) -> int:
        """Actors that collected something within the last 20 seconds."""
        return len(self.query("increase(headrace_actor_env_steps_total[20s]) > 0"))

    def version(self) -> int:
        return int(self.value("max(headrace_learner_policy_version)") or 0)

    def epoch(self) -> int:
        """Which of the learner's lives it is."""
        return int(self.value("max(headrace_learner_epoch)") or 0)

    def seconds_to_next_life(self, epoch: int, version: int, timeout_s: float) -> float:
        """How long until a learner after ``epoch`` has gone beyond ``version``. (The one before may still have made
        versions while it was told to end.)"""
        return self.node.wait(
            lambda: self.epoch() > epoch and self.version() > version, "versions of the learner's next life", timeout_s
        )

    def seconds_to_new_versions(self, timeout_s: float) -> float:
        before = self.version()
        return self.node.wait(lambda: self.version() > before + 3, "new versions", timeout_s)

    def reaches(self, pod: str, host: str, port: int) -> bool:
        """Whether what runs in a pod can open a connection to another."""
        code = f'import socket; socket.create_connection(("{host}", {port}), 3)'
        return self.node.holds(f"kubectl --namespace {self.namespace} exec {pod} -- python -c '{code}'")


def _well(pod: dict[str, Any]) -> bool:
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    return "deletionTimestamp" not in pod["metadata"] and (ready or pod["status"]["phase"] == "Succeeded")


def _volume(name: str, namespace: str, claim: str, path: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "10Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": namespace, "name": claim},
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }  # fmt: skip
