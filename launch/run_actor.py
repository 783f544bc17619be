"""The actor role: workers of fragments until told to stop. What it loads imports no torch."""

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

#: How long one ``next`` may wait for a lease before the loop looks whether it should stop.
_LEASE_WAIT_S = 1.0
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
    """Step this process's workers in turn until ``stop()`` or until the learner ends the run; then flush."""
    blueprint, incarnation = Blueprint(config), new_incarnation()
    sink = open_sink(config.transport.url, limits=blueprint.limits, metrics=metrics, key=f"{index}-{incarnation:x}")
    first = index * config.actors.workers
    workers = []
    try:
        for worker_id in range(first, first + config.actors.workers):
            subscriber = GrpcSubscriber(
                config.weights.address,
                config.run.id,
                worker_id,
                incarnation,
                token(config),
                metrics,
                ca=config.weights.tls_ca,
            )
            workers.append(blueprint.rollout_worker(worker_id, incarnation, subscriber, sink, metrics))
        while not stop():
            # Wait on one worker only when none of them may go on: a lease counts as spent until its worker asks again.
            if len(workers) == 1 or not any([worker.step(0.0) for worker in workers]):
                workers[0].step(_LEASE_WAIT_S if len(workers) == 1 else _TURN_S)
    except Closed as end:
        print(f"actor: {end}; nothing more to do", file=sys.stderr, flush=True)
    finally:
        for worker in workers:
            worker.close()
        sink.close(_CLOSE_S)
