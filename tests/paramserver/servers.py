"""Parameter servers, publishers and subscribers for tests; everything opened here is closed at the end of the test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from headrace.common.metrics import Metrics
from headrace.common.types import Lease, Weights
from headrace.common.weights.address import addresses
from headrace.common.weights.base import Progress
from headrace.common.weights.grpc import GrpcFollower, GrpcPublisher, GrpcSubscriber
from headrace.common.weights.tls import Tls
from headrace.paramserver.options import Options
from headrace.paramserver.parents import Parents
from headrace.paramserver.server import ParamServer

RUN = "run-1"
PLENTY = Progress(1 << 40)
LEARNERS, ACTORS = "learner-secret", "actor-secret"


def weights(version: int, epoch: int = 1, nbytes: int = 400, run_id: str = RUN) -> Weights:
    """A version whose every value is its number."""
    return Weights(run_id, epoch, version, {"w": np.full(nbytes // 4, version, np.float32)}, {"epsilon": 0.5})


def token_files(folder: Path, publish: str = LEARNERS, subscribe: str = ACTORS) -> dict[str, Path]:
    """The options of a server that asks for tokens."""
    files = {"publish_token_file": folder / "publish.token", "token_file": folder / "subscribe.token"}
    for path, token in zip(files.values(), (publish, subscribe), strict=True):
        path.write_text(f"{token}\n")
    return files


def collect(actor: GrpcSubscriber, have_version: int, timeout_s: float) -> Lease | None:
    """A lease, whose fragment is there at once."""
    lease = actor.next(have_version, timeout_s)
    if lease is not None:
        actor.delivered()
    return lease


def wait_for(condition: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """The first true value of ``condition``; fails the test after ``timeout_s``."""
    until_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < until_s, "the condition never came true"
        time.sleep(0.01)
    return value


class Rig:
    """Opens servers and clients, and closes them in reverse order."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.server_metrics, self.learner_metrics = Metrics("paramserver"), Metrics("learner")

    def server(self, address: str = "127.0.0.1:0", **options: Any) -> ParamServer:
        server = ParamServer(address, Options(**options), self.server_metrics)
        server.start()
        self._stack.callback(server.stop, 0.0)
        return server

    def relay(
        self, parents: str, address: str = "127.0.0.1:0", token: str = "", tls: Tls | None = None, **options: Any
    ) -> ParamServer:
        """``token``, ``tls``: what it shows its parents. ``relay_metrics`` are the latest one's."""
        self.relay_metrics = Metrics("relay")
        parent = Parents(addresses(parents), options.pop("run_id", RUN), lambda: token, tls)
        relay = ParamServer(address, Options(relays=True, **options), self.relay_metrics, parents=parent)
        relay.start()
        self._stack.callback(relay.stop, 0.0)
        return relay

    def publisher(self, address: str, token: str = "", run_id: str = RUN, **options: Any) -> GrpcPublisher:
        publisher = GrpcPublisher(address, run_id, token, self.learner_metrics, **options)
        self._stack.callback(publisher.close)
        return publisher

    def subscriber(
        self, address: str, actor_id: int = 0, incarnation: int = 1, token: str = "", run_id: str = RUN, **options: Any
    ) -> GrpcSubscriber:
        subscriber = GrpcSubscriber(address, run_id, actor_id, incarnation, token, Metrics("actor"), **options)
        self._stack.callback(subscriber.close)
        return subscriber

    def follower(self, address: str, token: str = "", **options: Any) -> GrpcFollower:
        follower = GrpcFollower(address, RUN, token, Metrics("evaluator"), **options)
        self._stack.callback(follower.close)
        return follower

    def process(self, port: int) -> subprocess.Popen[str]:
        """A server in a process of its own, listening when this returns."""
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, str(port)], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        self._stack.callback(_end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        return process


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    with contextlib.ExitStack() as stack:
        yield Rig(stack)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


_MAIN = """
import signal, sys, threading
from headrace.common.metrics import Metrics
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer
from headrace.paramserver.parents import Parents
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
server = ParamServer(f"127.0.0.1:{sys.argv[1]}", Options(lost_after_s=5.0, settle_s=2.0), Metrics("paramserver"))
server.start()
print("listening", flush=True)
stop.wait()
server.stop(grace_s=5.0)
"""
