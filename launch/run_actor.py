"""The actor role: streams of fragments until told to stop. What it loads imports no torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from headrace.common.errors import Closed
from headrace.common.metrics import Metrics
from headrace.common.transport import open_sink
from headrace.common.weights.grpc import GrpcSubscriber
from headrace.launch.build import Blueprint, new_incarnation
from headrace.launch.config import Config
from headrace.launch.roles import add_role_arguments, announced, role_config, token
from headrace.launch.stopping import Stop

#: How long one ``next`` may wait for leave before the loop looks whether it should stop.
_LEAVE_WAIT_S = 1.0
_TURN_S = 0.02
_CLOSE_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument("--index", type=int, default=0, metavar="N", help="which actor process this is, from 0")


def run(args: argparse.Namespace) -> int:
    config = role_config(args)
    stop, metrics = Stop(args.supervised), Metrics("actor")
    with announced(args, metrics, "actor", args.index):
        act(config, args.index, metrics, stop)
    return 0


def act(config: Config, index: int, metrics: Metrics, stop: Callable[[], bool]) -> None:
    """Step this process's streams in turn until ``stop()`` or until the learner ends the run; then flush."""
    blueprint, incarnation = Blueprint(config), new_incarnation()
    sink = open_sink(config.transport.url, limits=blueprint.limits, metrics=metrics, key=f"{index}-{incarnation:x}")
    first = index * config.actors.streams
    streams = []
    try:
        for stream_id in range(first, first + config.actors.streams):
            subscriber = GrpcSubscriber(
                config.weights.address,
                config.run.id,
                stream_id,
                incarnation,
                token(config),
                metrics,
                ca=config.weights.tls_ca,
            )
            streams.append(blueprint.stream(stream_id, incarnation, subscriber, sink, metrics))
        while not stop():
            # Wait on one stream only when none of them may go on: a lease counts as spent until its stream asks again.
            if len(streams) == 1 or not any([stream.step(0.0) for stream in streams]):
                streams[0].step(_LEAVE_WAIT_S if len(streams) == 1 else _TURN_S)
    except Closed as end:
        print(f"actor: {end}; nothing more to do", file=sys.stderr, flush=True)
    finally:
        for stream in streams:
            stream.close()
        sink.close(_CLOSE_S)
