"""What doctor asks in processes of their own, so that a broken library, or one that hangs, cannot take doctor along.

    python -P -m headrace.observe.probe torch|environment|broker|paramserver [ARGUMENT ...]    prints one JSON object

A probe that fails prints {"error": "..."}; one that does not come back is ended by its caller.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from typing import Any

DEADLINE_MS = 5000


def ask(name: str, *arguments: str, timeout_s: float = 60.0) -> dict[str, Any]:
    """Run a probe and return its answer; ``error`` in it says what went wrong."""
    command = [sys.executable, "-P", "-m", "headrace.observe.probe", name, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {timeout_s:g} s"}
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = done.stderr.strip().splitlines() or ["nothing said"]
        return {"error": f"exit code {done.returncode}: {said[-1]}"}
    return dict(answer)


def torch() -> dict[str, Any]:
    """Version, threads, and the CUDA devices torch can use."""
    import torch as t

    devices = []
    for i in range(t.cuda.device_count() if t.cuda.is_available() else 0):
        properties = t.cuda.get_device_properties(i)
        t.ones(8, device=f"cuda:{i}").sum().item()
        devices.append({"name": properties.name, "memory_bytes": properties.total_memory})
    return {"version": t.__version__, "cuda": t.version.cuda, "threads": t.get_num_threads(), "devices": devices}


def environment() -> dict[str, Any]:
    """Make LunarLander and step it: box2d is the dependency that fails to install most often."""
    import gymnasium

    env = gymnasium.make("LunarLander-v3")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    return {"version": gymnasium.__version__}


def broker(address: str, topic: str) -> dict[str, Any]:
    """How many brokers there are, and the largest message the topic takes (null: there is no such topic yet)."""
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    limits = {"bootstrap_timeout_ms": DEADLINE_MS, "request_timeout_ms": DEADLINE_MS}
    admin = KafkaAdminClient(bootstrap_servers=[address], **limits)
    answer: dict[str, Any] = {"brokers": len(admin.describe_cluster()["brokers"]), "topic_bytes": None}
    if topic in admin.list_topics():
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        described = admin.describe_configs([resource], config_filter="all")
        answer["topic_bytes"] = int(described["topic"][topic]["max.message.bytes"]["value"])
    return answer


def paramserver(address: str) -> dict[str, Any]:
    """What gRPC's health service says of the server as a whole."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    try:
        with grpc.insecure_channel(address) as channel:
            request = health_pb2.HealthCheckRequest(service="")
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=DEADLINE_MS / 1000).status
    except grpc.RpcError as e:
        return {"error": f"{e.code().name}: {e.details()}"}
    return {"status": health_pb2.HealthCheckResponse.ServingStatus.Name(status)}


def main(arguments: list[str]) -> int:
    warnings.simplefilter("ignore")
    name, *rest = arguments
    probes = {"torch": torch, "environment": environment, "broker": broker, "paramserver": paramserver}
    try:
        answer = probes[name](*rest)  # type: ignore[operator]
    except Exception as e:
        # Whatever it is, it is the finding: doctor prints it beside what would be right.
        answer = {"error": f"{type(e).__name__}: {e}".splitlines()[0]}
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
