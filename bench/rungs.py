"""The rungs of bench/ladder.py without a learner: what one actor process does on each, and all of them together."""

from __future__ import annotations

import multiprocessing as mp
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from headrace.actor.rollout_worker import Timings
from headrace.common.metrics import Metrics
from headrace.common.transport import open_sink, open_source
from headrace.common.types import Lease, Weights
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.load import check


class AlwaysGrant:
    """A subscriber for rungs without a learner: the same weights, a lease at once."""

    def __init__(self, weights: Weights) -> None:
        self._weights, self._lease = weights, 0

    def next(self, have_version: int, timeout_s: float) -> Lease:
        self._lease += 1
        return Lease(self._lease, 1, None if have_version >= 0 else self._weights)

    def delivered(self) -> None: ...

    def close(self) -> None: ...


def random_weights(blueprint: Blueprint) -> Weights:
    """A policy network of the right shape (no learner needed, so no torch in these processes)."""
    rng, spaces = np.random.default_rng(0), blueprint.spaces
    widths = [*spaces.obs_shape, *blueprint.algorithm_config.hidden, spaces.n_actions or spaces.action_dim]
    tensors = {"obs_mean": np.zeros(widths[0], np.float32), "obs_scale": np.ones(widths[0], np.float32)}
    for i, (into, out) in enumerate(pairwise(widths)):
        tensors[f"pi.{i}.weight"] = (rng.standard_normal((into, out)) / np.sqrt(into)).astype(np.float32)
        tensors[f"pi.{i}.bias"] = np.zeros(out, np.float32)
    if not spaces.discrete:
        tensors["log_std"] = np.zeros(spaces.action_dim, np.float32)
    return Weights(blueprint.config.run.id, 1, 0, tensors)


# --- what one actor process does on each rung; returns steps taken ---------------------------------------------------


def env_alone(config: Config, index: int, until: Callable[[], bool]) -> int:
    from headrace.tasks import make_batch

    envs = make_batch(config.task.env, config.actors.envs, backend=config.task.backend, seed=index)
    envs.reset(range(len(envs)))
    rng, steps = np.random.default_rng(index), 0
    actions = rng.integers(envs.spaces.n_actions, size=(1000, len(envs)))
    while not until():
        envs.step(actions[steps // len(envs) % 1000])
        steps += len(envs)
    return steps


def with_inference(config: Config, index: int, until: Callable[[], bool]) -> int:
    blueprint, steps = Blueprint(config), 0
    rollout = blueprint.rollout(index, index)
    rollout.policy.load(random_weights(blueprint))
    while not until():
        fragment = rollout.collect(0, Timings())
        steps += fragment.T * fragment.B
    return steps


def with_carrier(config: Config, index: int, until: Callable[[], bool]) -> int:
    blueprint, metrics = Blueprint(config), Metrics("actor")
    sink = open_sink(config.transport.url, limits=blueprint.limits, metrics=metrics, key=str(index))
    worker = blueprint.rollout_worker(index, index, AlwaysGrant(random_weights(blueprint)), sink, metrics)
    while not until():
        worker.step(0.0)
    sink.close(5.0)
    return int(metrics.value("actor_env_steps_total"))


RUNGS: dict[str, Callable[[Config, int, Callable[[], bool]], int]] = {
    "environment": env_alone,
    "+ inference": with_inference,
    "+ carrier": with_carrier,
}


def _process(rung: str, config: dict[str, Any], index: int, seconds: float, ready: Any, results: Any) -> None:
    began = 0.0

    def until() -> bool:
        nonlocal began
        if not began:  # the first look: everything is built
            ready.wait()
            began = time.perf_counter()
        return time.perf_counter() - began > seconds

    steps = RUNGS[rung](check(config, "ladder"), index, until)
    results.put(steps / (time.perf_counter() - began))


def actors_only(rung: str, config: Config, seconds: float) -> float:
    """Steps per second of all actor processes together, with a drain where there is a carrier."""
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        table = config.model_dump(mode="json", exclude_none=True)
        table["run"]["id"], table["transport"]["url"] = "ladder", f"local://{folder}/t"
        source = None
        if rung == "+ carrier":
            blueprint = Blueprint(check(table, "ladder"))
            source = open_source(
                table["transport"]["url"],
                limits=blueprint.limits,
                metrics=Metrics("learner"),
                dead_letter=Path(folder),
                group="g",
            )
        n, results = config.actors.processes, context.Queue()
        ready = context.Barrier(n)
        arguments = [(rung, table, i, seconds, ready, results) for i in range(n)]
        processes = [context.Process(target=_process, args=a) for a in arguments]
        for process in processes:
            process.start()
        while any(p.is_alive() for p in processes):
            if source is None:
                time.sleep(0.1)
            else:
                source.get(timeout_s=0.1)
        if source is not None:
            source.close()
        return sum(results.get(timeout=5) for _ in range(n))
