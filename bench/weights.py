"""How fast do weights reach their subscribers, against bare gRPC streaming of chunks that lie ready?

    python bench/weights.py [--megabytes 100] [--subscribers 8] [--rounds 3] [--json]      -> bench/results/weights.json

One process per subscriber; each is a client of both servers, and the two take turns within each round:

    bare      a grpc.aio generic handler writes the same 1 MiB chunks to every stream; the clients count bytes
    headrace  the parameter server holds a version; the clients take it over: digest checked, tensors ready
    publish   from the learner's publish() until the last waiting subscriber has taken the version over

Seconds run from the moment all clients are told to start until the last one is done (medians over the rounds). CPU
seconds are those of all clients and the server, and tell more on a machine that does other things as well.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing as mp
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import save

from headrace.common.metrics import Metrics
from headrace.common.types import Weights
from headrace.common.weights.base import Progress
from headrace.common.weights.chunks import pack
from headrace.common.weights.client import CHANNEL_OPTIONS
from headrace.common.weights.grpc import GrpcFollower, GrpcPublisher, GrpcSubscriber
from headrace.paramserver.options import Options
from headrace.paramserver.server import CHANNEL_OPTIONS as SERVER_OPTIONS
from headrace.paramserver.server import ParamServer

RUN, TIMEOUT_S = "bench", 120.0
PLENTY = Progress(1 << 40)


def version(number: int, nbytes: int) -> Weights:
    """Four layers of a quarter of ``nbytes`` each."""
    layer = np.random.default_rng(number).random(nbytes // 16, np.float32)
    return Weights(RUN, 1, number, {f"layer{i}": layer + i for i in range(4)})


def serve_bare(pipe: Connection, chunks: list[bytes]) -> None:
    async def write_all(request: bytes, context: Any) -> None:
        for chunk in chunks:
            await context.write(chunk)

    async def main() -> None:
        server = grpc.aio.server(options=SERVER_OPTIONS)
        handler = grpc.unary_stream_rpc_method_handler(write_all)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", {"Get": handler}),))
        pipe.send(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        loop = asyncio.get_running_loop()
        while (await loop.run_in_executor(None, pipe.recv)) == "cpu":
            pipe.send(time.process_time())
        await server.stop(0)

    asyncio.run(main())


def serve_headrace(pipe: Connection) -> None:
    server = ParamServer("127.0.0.1:0", Options(run_id=RUN), Metrics("paramserver"))
    server.start()
    pipe.send(server.address)
    while pipe.recv() == "cpu":
        pipe.send(time.process_time())
    server.stop(0.0)


def client(pipe: Connection, index: int, bare_address: str, address: str) -> None:
    """Does what the pipe says and answers with (CPU seconds used, moment it was done)."""
    actor = GrpcSubscriber(address, RUN, index, 1, "", Metrics("actor"))
    follower = GrpcFollower(address, RUN, "", Metrics("evaluator"))
    channel = grpc.insecure_channel(bare_address, CHANNEL_OPTIONS)
    grpc.channel_ready_future(channel).result(TIMEOUT_S)
    bare = channel.unary_stream("/bench.Bare/Get")
    while (order := pipe.recv()) is not None:
        what, number, expected = order
        cpu = time.process_time()
        if what == "bare":
            assert sum(len(chunk) for chunk in bare(b"", timeout=TIMEOUT_S)) == expected
        else:
            source = actor if what == "headrace" else follower
            got = actor.next(-1, TIMEOUT_S) if source is actor else follower.newest(number - 1, TIMEOUT_S)
            weights = got if isinstance(got, Weights) else got.weights if got else None
            assert weights is not None
            assert weights.version == number
            assert sum(t.nbytes for t in weights.tensors.values()) == expected
        pipe.send((time.process_time() - cpu, time.monotonic()))
    for end in (actor, follower, channel):
        end.close()


class Bench:
    """The processes, and one measurement at a time."""

    def __init__(self, nbytes: int, subscribers: int) -> None:
        self._nbytes, self._spawn = nbytes, mp.get_context("spawn")
        self._processes: list[Any] = []
        blob = pack(version(0, nbytes), 1 << 40)
        self._bare_bytes = sum(len(m) for m in blob.messages)
        self._bare = self._start(serve_bare, list(blob.messages))
        self._server = self._start(serve_headrace)
        bare_address, address = self._bare.recv(), self._server.recv()
        self._publisher = GrpcPublisher(address, RUN, "", Metrics("learner"))
        self._number = 0
        self._publish()
        self._clients = [self._start(client, i, bare_address, address) for i in range(subscribers)]

    def bare(self) -> tuple[float, float]:
        return self._measure(self._bare, "bare", self._bare_bytes)

    def headrace(self) -> tuple[float, float]:
        return self._measure(self._server, "headrace", self._nbytes)

    def publish(self) -> tuple[float, float]:
        weights = version(self._number + 1, self._nbytes)
        self._number += 1
        return self._measure(self._server, "publish", self._nbytes, lambda: self._publisher.publish(weights, PLENTY))

    def close(self) -> None:
        self._publisher.close()
        for pipe in (*self._clients, self._bare, self._server):
            pipe.send(None)
        for process in self._processes:
            process.join(TIMEOUT_S)

    def _publish(self) -> None:
        self._publisher.publish(version(self._number, self._nbytes), PLENTY)
        self._publisher.flush(TIMEOUT_S)

    def _measure(self, server: Connection, what: str, expected: int, act: Any = None) -> tuple[float, float]:
        """Seconds until the last client was done, and CPU seconds of clients and server."""
        before = self._cpu(server)
        if act is None:
            began = time.monotonic()
        for pipe in self._clients:
            pipe.send((what, self._number, expected))
        if act is not None:
            time.sleep(1.0)  # let every subscriber ask before the version is there
            began = time.monotonic()
            act()
        answers = [pipe.recv() for pipe in self._clients]
        seconds = max(done for _, done in answers) - began
        return seconds, sum(cpu for cpu, _ in answers) + self._cpu(server) - before

    @staticmethod
    def _cpu(server: Connection) -> float:
        server.send("cpu")
        return float(server.recv())

    def _start(self, target: Any, *args: Any) -> Connection:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(target=target, args=(theirs, *args), daemon=True)
        process.start()
        self._processes.append(process)
        return ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--subscribers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="keep the result in bench/results/weights.json")
    args = parser.parse_args()
    nbytes = args.megabytes * 1_000_000 // 16 * 16
    bench = Bench(nbytes, args.subscribers)
    rounds: dict[str, list[tuple[float, float]]] = {"bare": [], "headrace": [], "publish": []}
    try:
        for number in range(args.rounds + 1):
            for name, measured in rounds.items():
                result = getattr(bench, name)()
                if number > 0:  # the first round warms up
                    measured.append(result)
    finally:
        bench.close()
    seconds = {name: statistics.median(s for s, _ in measured) for name, measured in rounds.items()}
    cpu = {name: statistics.median(c for _, c in measured) for name, measured in rounds.items()}
    for name, s in seconds.items():
        rate = args.subscribers * nbytes / s / 1e6
        print(f"{name:9} {s:6.3f} s  {rate:7.0f} MB/s  {cpu[name]:6.2f} CPU s")
    result = {
        "bytes": nbytes,
        "subscribers": args.subscribers,
        "rounds": rounds,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "of_bare": seconds["bare"] / seconds["headrace"],
        "of_bare_by_cpu": cpu["bare"] / cpu["headrace"],
    }
    print(
        f"headrace reaches {result['of_bare']:.0%} of bare gRPC streaming ({result['of_bare_by_cpu']:.0%} by CPU time)"
    )
    if args.json:
        print(json.dumps(str(save("weights", result).name)))


if __name__ == "__main__":
    main()
