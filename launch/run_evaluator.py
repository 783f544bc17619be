"""The evaluator role: follows the newest weights and plays greedy episodes on unseen seeds, away from the learner.

newest weights -> greedy episodes -> evaluations.jsonl, metrics -> newest weights -> ...
"""

from __future__ import annotations

import argparse
import contextlib
import time

from headrace.common.errors import Finished, UsageError
from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.seeding import evaluation_seeds
from headrace.common.waiting import Waiting
from headrace.common.weights.grpc import GrpcFollower
from headrace.launch.build import Blueprint
from headrace.launch.evaluate import Evaluation, play
from headrace.launch.roles import SUBSCRIBE, add_role_arguments, announced, client_tls, role_config, token
from headrace.launch.stopping import Stop
from headrace.observe.rows import MetricsLog

_WAIT_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument(
        "--episodes", type=int, default=20, metavar="N", help="greedy episodes per version (default 20)"
    )
    parser.add_argument("--every-s", type=float, default=30.0, metavar="S", help="at most one evaluation in S seconds")
    parser.add_argument("--once", action="store_true", help="evaluate the newest version and exit")


def run(args: argparse.Namespace) -> int:
    if args.run_dir is None:
        raise UsageError("evaluator: --run-dir is needed; evaluations.jsonl goes there")
    config = role_config(args)
    blueprint, stop, metrics = Blueprint(config), Stop(args.supervised), Metrics("evaluator")
    policy, have, due_s = blueprint.policy(), -1, 0.0
    away, pulse = Waiting("evaluator", config.weights.down_timeout_s), Pulse(config.run.turn_timeout_s)
    follower = GrpcFollower(
        config.weights.address, config.run.id, token(config, SUBSCRIBE), metrics, tls=client_tls(config), away=away
    )
    args.run_dir.mkdir(parents=True, exist_ok=True)
    log = MetricsLog(args.run_dir / "evaluations.jsonl")
    with contextlib.closing(log), announced(args, metrics, pulse):
        while not stop():
            pulse.beat()
            try:
                weights = follower.newest(have, _WAIT_S) if time.monotonic() >= due_s else None
            except Finished as end:
                if not args.stay:
                    print(f"evaluator: {end}", flush=True)
                    break
                weights, due_s = None, time.monotonic() + args.every_s
            if weights is None:
                time.sleep(min(_WAIT_S, max(0.0, due_s - time.monotonic())))
                continue
            have, due_s = weights.version, time.monotonic() + args.every_s
            policy.load(weights)
            found = Evaluation(
                tuple(play(config, policy, evaluation_seeds(args.episodes), pulse.beat)), weights.version, None
            )
            log.write(found.to_json())
            print(f"version {found.version}: {found.mean:.1f} ± {found.interval:.1f}", flush=True)
            metrics.set("evaluator_return", found.mean)
            metrics.set("evaluator_policy_version", found.version)
            if args.once:
                break
        follower.close()
    return 0
