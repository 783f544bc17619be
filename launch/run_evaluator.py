"""The evaluator role: follows the newest weights and plays greedy episodes on unseen seeds, away from the learner.

newest weights -> greedy episodes -> evaluations.jsonl, metrics, best/, videos/ -> rest -> newest weights -> ...

A child of `headrace train` it lets the others go first and rests until its share of the time is kept
(allowance.py): run.evaluation_share. On a machine of its own it plays whenever there is something new.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from headrace.algorithms.base import Policy
from headrace.common.errors import Finished, HeadraceError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.seeding import selection_seeds
from headrace.common.types import Weights
from headrace.common.waiting import Waiting
from headrace.common.weights.grpc import GrpcFollower
from headrace.launch import best, film
from headrace.launch.allowance import Allowance, step_back
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.evaluate import Evaluation, play
from headrace.launch.roles import SUBSCRIBE, add_role_arguments, announced, client_tls, role_config, token
from headrace.launch.solved import stop_at
from headrace.launch.stopping import Stop
from headrace.observe import evaluations
from headrace.observe.rows import MetricsLog

VIDEOS = "videos"
_WAIT_S = 1.0
#: Beside others, how often to look whether to stop: the end of a run waits for nobody.
_LOOK_S = 0.1
#: Newer than any version: who has it waits for the end of the run, or for its next learner.
_NEWEST = (1 << 63) - 1


class Stopped(Exception):
    """Told to stop in the middle of an episode."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument(
        "--episodes", type=int, metavar="N", help="greedy episodes per version (default: run.evaluation_episodes)"
    )
    parser.add_argument("--every-s", type=float, default=30.0, metavar="S", help="at most one evaluation in S seconds")
    parser.add_argument("--once", action="store_true", help="evaluate the newest version and exit")


def run(args: argparse.Namespace) -> int:
    if args.run_dir is None:
        raise UsageError("evaluator: --run-dir is needed; evaluations.jsonl goes there")
    config = role_config(args)
    beside_others = args.supervised is not None
    if beside_others:
        step_back()
    allowance = Allowance(config.run.evaluation_share if beside_others else 1.0)
    stop, metrics, pulse = Stop(args.supervised), Metrics("evaluator"), Pulse(config.run.turn_timeout_s)
    away = Waiting("evaluator", config.weights.down_timeout_s)
    follower = GrpcFollower(
        config.weights.address, config.run.id, token(config, SUBSCRIBE), metrics, tls=client_tls(config), away=away
    )
    args.run_dir.mkdir(parents=True, exist_ok=True)

    def stepped() -> None:
        pulse.beat()
        allowance.rest(stop)
        if stop():
            raise Stopped

    with (
        contextlib.closing(follower),
        announced(args, metrics, pulse),
        contextlib.suppress(Stopped),
        contextlib.closing(Evaluator(config, args.run_dir, args.episodes, metrics, stepped)) as evaluator,
    ):
        _follow(args, follower, evaluator, allowance, stop, pulse)
    return 0


def _follow(
    args: argparse.Namespace,
    follower: GrpcFollower,
    evaluator: Evaluator,
    allowance: Allowance,
    stop: Callable[[], bool],
    pulse: Pulse,
) -> None:
    """Evaluate version after version until ``stop()``, or until the learner ends the run."""
    have, due_s, cost_s, beside_others = -1, 0.0, 0.0, args.supervised is not None
    while not stop():
        pulse.beat()
        left_s = max(due_s - time.monotonic(), allowance.lacking_s(cost_s))
        if left_s > 0 and beside_others:
            time.sleep(min(_LOOK_S, left_s))
            continue
        wanted, wait_s = (_NEWEST, min(_WAIT_S, left_s)) if left_s > 0 else (have, _WAIT_S)
        try:
            weights = follower.newest(wanted, _LOOK_S if beside_others else wait_s)
        except Finished as end:
            if not (args.stay or beside_others):
                print(f"evaluator: {end}", flush=True)
                return
            time.sleep(_LOOK_S if beside_others else _WAIT_S)
            continue
        if weights is None:
            continue
        have, due_s, before_s = weights.version, time.monotonic() + args.every_s, time.process_time()
        evaluator.evaluate(weights)
        cost_s = time.process_time() - before_s
        if args.once:
            return


class Evaluator:
    """Plays a version and keeps what it came to. ``stepped`` is called after every step; what it raises ends it."""

    def __init__(
        self, config: Config, run_dir: Path, episodes: int | None, metrics: Metrics, stepped: Callable[[], None]
    ) -> None:
        self._config, self._run_dir, self._metrics, self._stepped = config, run_dir, metrics, stepped
        self._episodes = config.run.evaluation_episodes if episodes is None else episodes
        self._policy: Policy = Blueprint(config).policy()
        self._stop_at = stop_at(config)
        self._best = best.score(run_dir)
        self._log = MetricsLog(run_dir / evaluations.FILE)
        self._video_every_s = config.run.video_every_s
        self._video_due_s = time.monotonic()

    def evaluate(self, weights: Weights) -> None:
        self._policy.load(weights)
        found = self._play(weights)
        row = {**found.to_json(), "time_s": weights.trained_s, "learner_epoch": weights.learner_epoch}
        if self._stop_at is not None:
            row["solved"] = self._solves(found, weights, self._stop_at)
        self._log.write(row)
        print(f"version {found.version}: {found.text}", flush=True)
        self._metrics.set("evaluator_return", found.mean)
        self._metrics.set("evaluator_policy_version", found.version)
        if self._best is None or found.mean > self._best:
            self._best = found.mean
            best.keep(self._run_dir, weights, evaluations.short(row))
        if self._video_every_s and time.monotonic() >= self._video_due_s:
            self._film(weights)

    def close(self) -> None:
        self._log.close()

    def _play(self, weights: Weights, first: int = 0) -> Evaluation:
        returns = play(self._config, self._policy, selection_seeds(self._episodes, first), self._stepped)
        return Evaluation(tuple(returns), weights.version, weights.env_steps)

    def _solves(self, found: Evaluation, weights: Weights, stop_at: float) -> bool:
        """The lower end of the 95 % interval has to reach it, and once more on other seeds: of many looks at a policy
        that is not quite there, one would do by chance."""

        def reaches(evaluation: Evaluation) -> bool:
            return evaluation.mean - evaluation.interval >= stop_at

        return reaches(found) and reaches(self._play(weights, first=self._episodes))

    def _film(self, weights: Weights) -> None:
        folder = self._run_dir / VIDEOS
        path = folder / f"{weights.version if weights.env_steps is None else weights.env_steps}.gif"
        unfinished = folder / f".{path.name}"
        try:
            folder.mkdir(exist_ok=True)
            film.write_gif(self._config, self._policy, unfinished, selection_seeds(1)[0], self._stepped)
            os.replace(unfinished, path)
        except (OSError, HeadraceError) as error:
            print(f"no video: {error}", flush=True)
            self._video_every_s = 0.0
        self._video_due_s = time.monotonic() + self._video_every_s
