"""k8s/ as tests read it: the objects of the base and of each overlay."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
OVERLAYS = tuple(sorted(path.name for path in (ROOT / "k8s" / "overlays").iterdir()))
COMPONENT, PART_OF = "app.kubernetes.io/component", "app.kubernetes.io/part-of"
#: Where programs are kept that `make test-kubernetes` built.
_OURS = "kubernetes/kubectl"

Object = dict[str, Any]


def read(path: Path) -> list[Object]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


WHOLE = read(ROOT / "k8s" / "headrace.yaml")


@functools.cache
def overlay(name: str) -> tuple[Object, ...]:
    """What `kubectl apply -k` would send. Skips where there is no kubectl: `make test-kubernetes` has one, and reads
    them all."""
    from tests.cluster.engine import cache

    ours = cache() / _OURS
    kubectl = str(ours) if ours.exists() else shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl to read overlays with; make test-kubernetes builds one")
    command = [kubectl, "kustomize", str(ROOT / "k8s" / "overlays" / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"{name}: {done.stderr}"
    return tuple(yaml.safe_load_all(done.stdout))


def of_kind(objects: Sequence[Object], *kinds: str) -> dict[str, Object]:
    """By name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] in kinds}


def workloads(objects: Sequence[Object]) -> dict[str, Object]:
    """Name -> the pod template of each."""
    found = of_kind(objects, "Deployment", "StatefulSet", "Job")
    return {name: each["spec"]["template"] for name, each in found.items()}


def container(template: Object) -> Object:
    (only,) = template["spec"]["containers"]
    return dict(only)


def component(template: Object) -> str:
    return str(template["metadata"]["labels"][COMPONENT])


def environment(template: Object) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in container(template).get("env", ())}


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """What a label selector takes; the operators that k8s/ uses."""
    same = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    for term in selector.get("matchExpressions", ()):
        assert term["operator"] == "In", term
        same = same and labels.get(term["key"]) in term["values"]
    return same


def images(objects: Sequence[Object]) -> set[str]:
    return {str(container(template)["image"]) for template in workloads(objects).values()}


def targets() -> set[str]:
    """Of deploy/docker/Dockerfile."""
    return set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE))


def flows(objects: Sequence[Object]) -> Iterator[tuple[str, str, int]]:
    """Who may open a connection to whom, at which port: what the NetworkPolicies of both ends allow."""
    policies = list(of_kind(objects, "NetworkPolicy").values())
    ends = {component(template): template["metadata"]["labels"] for template in workloads(objects).values()}
    for source, leaving in ends.items():
        for target, arriving in ends.items():
            out = _allowed(policies, "Egress", "to", leaving, arriving)
            into = _allowed(policies, "Ingress", "from", arriving, leaving)
            yield from ((source, target, port) for port in sorted(out & into))


def _allowed(
    policies: Sequence[Object], direction: str, peers: str, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> set[int]:
    """Ports at which pods labelled ``ours`` may talk to ``theirs``, as far as one direction goes."""
    found = set()
    for policy in (each["spec"] for each in policies):
        if direction not in policy["policyTypes"] or not matches(policy["podSelector"], ours):
            continue
        for rule in policy.get(direction.lower(), ()):
            if peers not in rule or any("podSelector" in p and matches(p["podSelector"], theirs) for p in rule[peers]):
                found |= {port["port"] for port in rule["ports"]}
    return found
