"""What the parts of a Kubernetes node are told: their options and files."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headrace.launch.setup.authority import Authority

from .apart import ADDRESS

NAME = "node1"
SERVICES, PODS, DNS = "10.96.0.0/16", "10.244.0.0/16", "10.96.0.10"
_API = f"https://{ADDRESS}:6443"
#: Who lets itself in as whom: user, and group.
_USERS = {
    "admin": ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NAME}", "system:nodes"),
    "proxy": ("system:kube-proxy", ""),
}


def options(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Program -> its options, in the order of their start."""
    return {
        "etcd": (f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=warn"),
        "kube-apiserver": (
            "--etcd-servers=http://127.0.0.1:2379", f"--advertise-address={ADDRESS}",
            f"--service-cluster-ip-range={SERVICES}", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
            f"--token-auth-file={folder}/tokens.csv",
            f"--tls-cert-file={folder}/api.crt", f"--tls-private-key-file={folder}/api.key",
            f"--service-account-key-file={folder}/account.key",
            f"--service-account-signing-key-file={folder}/account.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--kubelet-preferred-address-types=InternalIP",
        ),
        "kube-controller-manager": (
            f"--kubeconfig={folder}/controllers.kubeconfig", "--leader-elect=false", f"--root-ca-file={folder}/ca.crt",
            "--use-service-account-credentials", f"--service-account-private-key-file={folder}/account.key",
        ),
        "kube-scheduler": (f"--kubeconfig={folder}/scheduler.kubeconfig", "--leader-elect=false"),
        "kubelet": (
            f"--config={folder}/kubelet.yaml", f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--root-dir={folder}/kubelet", f"--hostname-override={NAME}", f"--node-ip={ADDRESS}",
        ),
        "kube-proxy": (f"--config={folder}/proxy.yaml",),
        "coredns": (f"-conf={folder}/Corefile",),
        # kube-router, as nothing but the one who enforces NetworkPolicies.
        "policies": (
            f"--kubeconfig={folder}/admin.kubeconfig", "--run-firewall", "--run-router=false",
            "--run-service-proxy=false", f"--hostname-override={NAME}", f"--service-cluster-ip-range={SERVICES}",
        ),
    }  # fmt: skip


def write_access(folder: Path) -> None:
    """Certificates, and what lets each part of the cluster in."""
    authority = Authority.new("kubernetes")
    hosts = (NAME, ADDRESS, "10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    certificate, key = authority.certify("kube-apiserver", hosts=hosts)
    account = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    tokens = {name: secrets.token_hex() for name in _USERS}
    for name, token in tokens.items():
        (folder / f"{name}.kubeconfig").write_text(_kubeconfig(authority.certificate, token))
    lines = [f'{tokens[name]},{user},{name},"{group}"\n' for name, (user, group) in _USERS.items()]
    (folder / "tokens.csv").write_text("".join(lines))
    made = {"ca.crt": authority.certificate, "api.crt": certificate, "api.key": key, "account.key": account}
    for name, content in made.items():
        (folder / name).write_bytes(content)


def _kubeconfig(authority: bytes, token: str) -> str:
    cluster = {"server": _API, "certificate-authority-data": base64.b64encode(authority).decode()}
    return yaml.safe_dump(
        {
            "apiVersion": "v1", "kind": "Config", "current-context": "node",
            "clusters": [{"name": "node", "cluster": cluster}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "node", "context": {"cluster": "node", "user": "user"}}],
        }
    )  # fmt: skip


def write_containerd(folder: Path, root: Path, plugins: Path, pause: str) -> None:
    """``root`` keeps the images from run to run."""
    (folder / "containerd.toml").write_text(f"""version = 2
root = "{root}"
state = "{folder}/containerd"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Lowering it is refused on some machines.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{folder}/cni"
""")
    addresses = {"type": "host-local", "dataDir": f"{folder}/addresses", "ranges": [[{"subnet": PODS}]],
                 "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
    (folder / "cni").mkdir()
    (folder / "cni" / "pods.conflist").write_text(json.dumps(network))


def write_node(folder: Path, cgroup: str) -> None:
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    # failCgroupV1: Kubernetes 1.34 is the last that takes version 1.
    kubelet = {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1", "cgroupDriver": "cgroupfs",
        "failCgroupV1": False, "failSwapOn": False, "cgroupRoot": f"/{cgroup}", "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock", "clusterDomain": "cluster.local",
        "clusterDNS": [DNS], "resolvConf": f"{folder}/resolv.conf", "podLogsDir": f"{folder}/pods",
        "evictionHard": {"memory.available": "100Mi"}, "imageGCHighThresholdPercent": 100,
        # Nobody else reaches this network.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
    }  # fmt: skip
    proxy = {
        "kind": "KubeProxyConfiguration", "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "mode": "iptables",
        "clusterCIDR": PODS, "conntrack": {"maxPerCore": 0}, "hostnameOverride": NAME, "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": f"{folder}/proxy.kubeconfig"},
    }  # fmt: skip
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet))
    (folder / "proxy.yaml").write_text(yaml.safe_dump(proxy))
    (folder / "Corefile").write_text(f""".:53 {{
    bind {ADDRESS}
    kubernetes cluster.local {{
        kubeconfig {folder}/admin.kubeconfig
    }}
    cache 5
}}
""")


def names() -> tuple[dict[str, Any], ...]:
    """The service that pods ask for names, and where CoreDNS answers for it: on the node."""
    protocols = ("UDP", "TCP")
    about = {"name": "kube-dns", "namespace": "kube-system"}
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": about,
        "spec": {"clusterIP": DNS, "ports": [
            {"name": p.lower(), "protocol": p, "port": 53, "targetPort": 53} for p in protocols
        ]},
    }  # fmt: skip
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": about | {"labels": {"kubernetes.io/service-name": "kube-dns"}},
        "ports": [{"name": p.lower(), "protocol": p, "port": 53} for p in protocols],
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
    }  # fmt: skip
    return service, endpoints
