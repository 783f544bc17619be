"""headrace doctor: is this machine fit, are the packages right, do the broker and the parameter server answer?

One line a check: ok, warn or fail, what was found and, where it is not ok, what would be right. Nothing that is checked
can take doctor itself along: torch, box2d, Kafka and gRPC are asked in processes of their own (probe.py).
"""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from headrace.observe import machine
from headrace.observe.machine import BROKER_PORT, FAIL, OK, WARN, Check
from headrace.observe.probe import ask


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Check the machine, the packages, the broker and the parameter server. Exit code 1 on a fail."
    parser.add_argument("--carrier", metavar="URL", help="kafka://host:port/topic or local:///path to check as well")
    parser.add_argument("--paramserver", metavar="HOST:PORT", help="parameter server to check as well")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    checks = []
    for check in examine(args.carrier, args.paramserver):
        checks.append(check)
        if not args.json:
            said = "; ".join(filter(None, (check.found, check.right)))
            print(f"{check.level:<5} {check.name:<12} {said}", flush=True)
    if args.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return 1 if any(check.level == FAIL for check in checks) else 0


def examine(carrier: str | None = None, paramserver: str | None = None) -> Iterator[Check]:
    """All checks, each as soon as it is known."""
    yield machine.check_python()
    yield from machine.check_packages()
    yield machine.check_cores()
    yield machine.check_memory()
    yield from machine.check_disk()
    yield machine.check_torch()
    yield machine.check_environment()
    yield machine.check_java()
    yield machine.check_ports(expect_broker=carrier is not None)
    yield machine.check_clock()
    if carrier is not None:
        yield check_carrier(carrier)
    if paramserver is not None:
        yield check_paramserver(paramserver)


def check_carrier(url: str) -> Check:
    from headrace.common.transport.base import Limits

    try:
        parts = urlsplit(url)
    except ValueError as unfit:
        return Check("carrier", FAIL, f"{url}: {unfit}", "use kafka://host:port/topic or local:///path")
    if parts.scheme == "local":
        there = Path(parts.path).exists()
        right = "" if there else "the learner makes it when it starts"
        return Check("carrier", OK if there else WARN, f"{url}: {'there' if there else 'nothing there yet'}", right)
    topic, address = parts.path.strip("/"), parts.netloc if ":" in parts.netloc else f"{parts.netloc}:{BROKER_PORT}"
    if parts.scheme != "kafka" or not topic:
        return Check("carrier", FAIL, f"{url}: no address of a carrier", "use kafka://host:port/topic or local:///path")
    if (error := _reach(address)) is not None:
        return Check("carrier", FAIL, f"{address}: {error}", "start the broker, or name the address it advertises")
    answer = ask("broker", address, topic, timeout_s=30)
    if "error" in answer:
        return Check("carrier", FAIL, f"{address}: {answer['error']}", "is it a Kafka broker, and may we log in?")
    ours = Limits().record_bytes
    found = f"{address}: {answer['brokers']} broker(s)"
    if answer["topic_bytes"] is None:
        return Check("carrier", OK, f"{found}, topic {topic} is not there yet: the learner makes it")
    found += f", topic {topic} takes messages of {answer['topic_bytes']:,} bytes"
    if answer["topic_bytes"] < ours:
        return Check("carrier", FAIL, found, f"set its max.message.bytes to {ours} or more")
    return Check("carrier", OK, found)


def check_paramserver(address: str) -> Check:
    if (error := _reach(address)) is not None:
        return Check("paramserver", FAIL, f"{address}: {error}", "start it: headrace paramserver")
    answer = ask("paramserver", address, timeout_s=30)
    status = answer.get("status", answer.get("error", ""))
    if status == "SERVING":
        return Check("paramserver", OK, f"{address}: SERVING")
    if status == "NOT_SERVING":
        return Check("paramserver", WARN, f"{address}: NOT_SERVING", "it has no weights yet: start the learner")
    return Check("paramserver", FAIL, f"{address}: {status}", "it should answer gRPC's health check with SERVING")


def _reach(address: str, timeout_s: float = 3.0) -> str | None:
    """None when something accepts a TCP connection at host:port, else why not."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return "not host:port"
    try:
        socket.create_connection((host, int(port)), timeout_s).close()
    except OSError as e:
        return e.strerror or str(e)
    return None
