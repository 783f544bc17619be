"""The actor role: workers of fragments until told to stop. What it loads imports no torch."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from headrace.actor.rollout_worker import RolloutWorker
from headrace.actor.watchdog import Watchdog
from headrace.common.errors import Closed, Fenced, Finished, NoAnswer
from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.transport import open_sink
from headrace.common.waiting import Waiting
from headrace.common.weights.client import Client
from headrace.common.weights.grpc import GrpcSubscriber
from headrace.common.weights.join import join
from headrace.common.weights.tokens import Token
from headrace.launch.build import Blueprint, new_incarnation
from headrace.launch.config import Config
from headrace.launch.memory import limit_bytes, watch_memory
from headrace.launch.roles import SUBSCRIBE, add_role_arguments, announced, client_tls, role_config, token
from headrace.launch.stopping import Stop

#: How long one ``next`` may wait for a lease before the loop looks whether it should stop.
_LEASE_WAIT_S = 1.0
_TURN_S = 0.02
_CLOSE_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument(
        "--index", type=int, metavar="N", help="which actor process this is, from 0 (default: one that nobody is)"
    )


def run(args: argparse.Namespace) -> int:
    config = role_config(args)
    blueprint = Blueprint(config)
    blueprint.check_collecting()  # looks at an environment, before the watchdog of those that are stepped begins
    stop, metrics, pulse = Stop(args.supervised), Metrics("actor"), Pulse(config.run.turn_timeout_s)
    faulthandler.enable()  # where an environment crashed the process stands in the log
    watch_memory(limit_bytes(config, args.supervised is not None), stop)
    with announced(args, metrics, pulse, args.index or 0):
        acted = False
        while not stop():
            pulse.beat()
            try:
                act(blueprint, args.index, metrics, stop, pulse, stay=args.stay or args.supervised is not None)
                if not args.stay:
                    break
                acted = True
            except Fenced:
                if args.index is not None:
                    raise
                # Another process has our number by right, or by the accident of a new server: there are others.
            except NoAnswer as nobody:
                if not acted and args.supervised is None:
                    raise  # else the supervisor knows whether there is a learner: one may take minutes to begin
                print(f"actor: {nobody}; goes on waiting", file=sys.stderr, flush=True)
            time.sleep(_LEASE_WAIT_S)
    if stop.reason:
        print(f"actor {args.index or 0}: {stop.reason}", file=sys.stderr, flush=True)
    return 1 if stop.reason else 0


def act(
    blueprint: Blueprint,
    index: int | None,
    metrics: Metrics,
    stop: Callable[[], bool],
    pulse: Pulse,
    stay: bool = False,
) -> None:
    """Step this process's workers in turn until ``stop()`` or until the learner ends the run; then flush. ``stay``: at
    the end of the run wait for its next learner."""
    config, incarnation = blueprint.config, new_incarnation()
    away, unleased = Waiting("actor", config.weights.down_timeout_s), Waiting("actor", math.inf)
    try:
        with _workers(blueprint, index, incarnation, metrics, stop, pulse, away) as workers:
            while not stop():
                pulse.beat()
                try:
                    began_s = time.monotonic()
                    if _turn(workers) or away.under_way:
                        unleased.over()
                    else:
                        unleased.goes_on(began_s, f"no lease from the parameter server at {config.weights.address}: "
                                         "enough is under way for the learner's next version")  # fmt: skip
                except Finished as end:
                    if not stay:
                        print(f"actor: {end}", flush=True)
                        break
                    time.sleep(_LEASE_WAIT_S)
    except (Closed, Finished) as end:
        print(f"actor: {end}; nothing more to do", file=sys.stderr, flush=True)


def _turn(workers: Sequence[RolloutWorker]) -> bool:
    """Whether anything was collected. Wait on one worker only when none of them may go on: a lease counts as spent
    until its worker asks again."""
    if len(workers) > 1 and any([worker.step(0.0) for worker in workers]):
        return True
    return workers[0].step(_LEASE_WAIT_S if len(workers) == 1 else _TURN_S)


@contextlib.contextmanager
def _workers(
    blueprint: Blueprint,
    index: int | None,
    incarnation: int,
    metrics: Metrics,
    stop: Callable[[], bool],
    pulse: Pulse,
    away: Waiting,
) -> Iterator[list[RolloutWorker]]:
    """The rollout workers of this process, and their sink behind them."""
    config, secret = blueprint.config, token(blueprint.config, SUBSCRIBE)
    sink = open_sink(config.transport.url, limits=blueprint.limits, metrics=metrics, key=f"{incarnation:x}", stop=stop)
    workers: list[RolloutWorker] = []
    watchdog = Watchdog(lambda: [worker.envs for worker in workers], config.actors.step_timeout_s, pulse.beat)
    try:
        for number in _numbers(config, index, incarnation, secret, stop, away):
            subscriber = GrpcSubscriber(
                config.weights.address,
                config.run.id,
                number,
                incarnation,
                secret,
                metrics,
                tls=client_tls(config),
                away=away,
            )
            workers.append(blueprint.rollout_worker(number, incarnation, subscriber, sink, metrics))
        yield workers
    finally:
        for worker in workers:
            worker.close()
        watchdog.close()
        sink.close(_CLOSE_S)


def _numbers(
    config: Config, index: int | None, incarnation: int, secret: Token, stop: Callable[[], bool], away: Waiting
) -> Sequence[int]:
    """Which workers this process has: those of its index, or such as the parameter server knows to be free."""
    n = config.actors.workers
    if index is not None:
        return range(index * n, (index + 1) * n)
    client = Client(config.weights.address, secret, client_tls(config))
    try:
        return join(client, config.run.id, incarnation, n, away, stop)
    finally:
        client.close()
