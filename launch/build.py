"""From a checked :class:`Config` to working parts. Every role and the serial runner build with these, so that a config
means the same everywhere."""

from __future__ import annotations

import contextlib
import secrets
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headrace.actor.env_rollout import EnvRollout
from headrace.actor.group_rollout import GroupRollout
from headrace.actor.rollout_worker import Identity, Rollout, RolloutWorker
from headrace.actor.watchdog import Watchdog
from headrace.algorithms import learner_of
from headrace.algorithms.base import Algorithm, Experience, Groups, Replay, Sequences
from headrace.common.errors import EnvironmentFailed, UsageError
from headrace.common.metrics import Metrics
from headrace.common.seeding import reset_seeds, stream
from headrace.common.transport import Limits, Sink, check_url, for_run
from headrace.common.types import Schema, Spaces, Trajectory
from headrace.common.validation import Expected, validate
from headrace.common.weights.address import addresses
from headrace.common.weights.base import Subscriber
from headrace.launch import fragment_size
from headrace.launch.config import Config
from headrace.launch.device import check_options, resolve
from headrace.launch.socket_dir import socket_dir
from headrace.learner.replay import replay_nbytes
from headrace.learner.sequences import sequences_nbytes
from headrace.tasks import make_batch
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from headrace.tasks.shaping import check_gamma

#: Asks for a place of this machine's own choice.
_ANY_LOCAL = ("local://", "local:")


@dataclass(frozen=True)
class Blueprint:
    """A config and what follows from it. Cheap parts are computed when asked for; none of it imports torch.

    ``watched``: an environment that hangs while it is looked at ends the process, as nothing else can. Not in a process
    of the user's own (a notebook, a debugger that stands in ``reset``)."""

    config: Config
    watched: bool = True

    @cached_property
    def algorithm_config(self) -> Any:
        return self.config.algorithm_config()

    @property
    def experience(self) -> Experience:
        experience: Experience = self.algorithm_config.experience
        return experience

    @property
    def envs_per_worker(self) -> int:
        """A group is as many environments as it has episodes; else the config says."""
        return self.experience.size if isinstance(self.experience, Groups) else self.config.actors.envs

    @property
    def spaces(self) -> Spaces:
        """Of one environment made for the purpose. Raises :class:`UsageError` for an unknown or unfit one."""
        return self._shown[0]

    @cached_property
    def _shown(self) -> tuple[Spaces, EnvironmentFailed | None]:
        """Its spaces, and what its first reset came to: whether it tells the mask of its actions is known only then."""
        task, failure = self.config.task, None
        batch = make_batch(task.env, 1, backend=task.backend, kwargs=task.kwargs, wrappers=task.wrappers)
        with contextlib.ExitStack() as closing:
            closing.callback(batch.close)
            if self.watched:
                watchdog = Watchdog(lambda: [batch], self.config.actors.step_timeout_s, who="headrace")
                closing.callback(watchdog.close)
            try:
                batch.reset([0])
            except EnvironmentFailed as error:
                failure = error
        return batch.spaces, failure

    @cached_property
    def schema(self) -> Schema:
        schema: Schema = self.config.algorithm_module().schema(self.algorithm_config, self.spaces)
        return schema

    @property
    def limits(self) -> Limits:
        return Limits(self.config.transport.record_bytes, self.config.transport.queue_bytes)

    @property
    def task_id(self) -> str:
        return self.config.task.env

    @property
    def lockstep_workers(self) -> int:
        """Streams that take leases in turn where nothing may be stale; 0 where they take them as they come."""
        return self.config.workers if self.config.learner.max_staleness == 0 else 0

    @cached_property
    def expected(self) -> Expected:
        """What the config says of every fragment. (Groups are as long as they are.)"""
        groups, actors = isinstance(self.experience, Groups), self.config.actors
        return Expected(
            self.schema,
            self.config.run.id,
            self.task_id,
            steps=0 if groups else actors.fragment_steps,
            envs=self.envs_per_worker,
            max_steps=self.experience.max_steps if isinstance(self.experience, Groups) else 0,
            episodes_whole=groups,
            lockstep=self.lockstep_workers,
        )

    def check_fragment(self, trajectory: Trajectory) -> None:
        """Is a record fit for this run's learner? Raises :class:`Rejected`."""
        validate(trajectory, self.expected)

    def check(self) -> None:
        """All that can be wrong before anything starts. Raises :class:`UsageError`."""
        if self.config.transport.url not in _ANY_LOCAL:
            check_url(self.config.transport.url)
        check_options(self.config.learner)
        check_gamma(self.config.task.wrappers, getattr(self.algorithm_config, "gamma", None))
        self.check_collecting()
        if (failure := self._shown[1]) is not None:  # an actor would try again; nobody is there to see it yet
            raise UsageError(f"task.env: {failure}") from failure

    def check_collecting(self) -> None:
        """The actors' part of it: what a machine that only collects must be fit for."""
        if isinstance(self.experience, Groups) and self.config.task.backend != "gymnasium":
            raise UsageError("task.backend: groups restart from one seed, which only 'gymnasium' environments can")
        fragment_size.check_arrays(self.schema, self.config.task.env)
        actors, cap = self.config.actors, self.config.transport.record_bytes
        if warning := fragment_size.check(self.schema, self.experience, actors.envs, actors.fragment_steps, cap):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        self.policy()

    def policy(self) -> Any:
        return self.config.algorithm_module().policy(self.algorithm_config, self.spaces)

    def algorithm(self) -> Algorithm:
        """The learning half; torch arrives here."""
        make = learner_of(self.config.algorithm["name"])
        algorithm: Algorithm = make(
            self.algorithm_config, self.spaces, seed=self.config.run.seed, device=resolve(self.config.learner)
        )
        return algorithm

    def rollout(self, worker_id: int, incarnation: int) -> Rollout:
        """Environments and policy of a rollout worker. In lockstep, numbers depend on the worker alone; else each life
        of an actor draws its own, or a restarted one would repeat itself."""
        config, task, seed = self.config, self.config.task, self.config.run.seed
        life = 0 if self.lockstep_workers else incarnation
        policy, rng, n = self.policy(), stream(seed, "act", worker_id, life), self.envs_per_worker
        if isinstance(self.experience, Groups):
            envs = GymnasiumBatch(task.env, n, dict(task.kwargs), task.wrappers)
            return GroupRollout(envs, policy, self.schema, self.experience.max_steps, seed, rng)
        seeds = reset_seeds(seed, "env", worker_id, life, n=n)
        batch = make_batch(task.env, n, backend=task.backend, kwargs=task.kwargs, seed=seeds[0], wrappers=task.wrappers)
        return EnvRollout(batch, policy, self.schema, config.actors.fragment_steps, seeds, rng)

    def rollout_worker(
        self, worker_id: int, incarnation: int, subscriber: Subscriber, sink: Sink, metrics: Metrics
    ) -> RolloutWorker:
        who = Identity(self.config.run.id, worker_id, incarnation, self.task_id, self.schema.hash)
        return RolloutWorker(
            who, self.rollout(worker_id, incarnation), subscriber, sink, metrics, check=self.check_fragment,
            # New environments draw the numbers a new life of the actor would: no experience comes twice.
            rebuild=None if self.lockstep_workers else lambda: self.rollout(worker_id, new_incarnation()),
        )  # fmt: skip


def new_incarnation() -> int:
    """Names one life of a process: 63 random bits."""
    return secrets.randbits(63)


def with_addresses(config: Config) -> Config:
    """Fill in what was left empty: a run id, a topic, and private addresses of this machine (short: sockets allow 107
    bytes)."""
    run = config.run if config.run.id else config.run.model_copy(update={"id": secrets.token_hex(6)})
    folder = socket_dir(run.id)
    transport, weights = config.transport, config.weights
    if transport.url in _ANY_LOCAL:
        transport = transport.model_copy(update={"url": f"local://{folder}/trajectories"})
    transport = transport.model_copy(update={"url": for_run(transport.url, run.id)})
    if not weights.address:
        weights = weights.model_copy(update={"address": f"unix:{folder}/weights"})
    # Refused here if they are no addresses, before anything is written, started, or waited for.
    addresses(weights.address)
    check_url(transport.url)
    return config.model_copy(update={"run": run, "transport": transport, "weights": weights})


def plan(blueprint: Blueprint) -> dict[str, Any]:
    """What the numbers of the config come to, printed before the start and kept in ``plan.json``."""
    config, experience = blueprint.config, blueprint.experience
    if isinstance(experience, Groups):
        envs, long, fragments = experience.size, experience.max_steps, experience.groups
    else:
        envs, long, fragments = config.actors.envs, config.actors.fragment_steps, experience.fragments
    steps = envs * long
    return {
        "workers": config.workers,
        "environments": config.workers * blueprint.envs_per_worker,
        "steps_per_fragment_at_most": steps,
        "fragments_per_version": fragments,
        "steps_per_version_at_most": steps * fragments,
        "versions_at_least": -(-config.run.total_steps // (steps * fragments)),
        "staleness_at_most_versions": config.learner.max_staleness,
        "workers_busy_at_most": config.leases_at_once,
        "fragment_bytes_about": fragment_size.nbytes(blueprint.schema, envs, long),
        "queue_bytes_at_most": config.transport.queue_bytes,
        "replay_bytes": _replay_bytes(blueprint),
    }


def plan_line(blueprint: Blueprint) -> str:
    """The plan as a person is told it."""
    planned, config = plan(blueprint), blueprint.config
    return (
        f"{config.algorithm_label} on {config.task.env}: {config.run.total_steps:,} steps, "
        f"{planned['environments']} environments in {config.actors.processes} actor processes "
        f"(up to {planned['workers_busy_at_most']} workers can be busy), "
        f"{planned['steps_per_version_at_most']:,} steps a version, at most {config.learner.max_staleness} stale, "
        f"seed {config.run.seed}"
    ) + (f", {planned['replay_bytes'] / 1e9:.2f} GB of replay" if planned["replay_bytes"] else "")


def _replay_bytes(blueprint: Blueprint) -> int:
    """What the learner's buffer takes from the first fragment on; 0 where there is none."""
    experience, actors = blueprint.experience, blueprint.config.actors
    if isinstance(experience, Sequences):
        return sequences_nbytes(blueprint.schema, experience, actors.fragment_steps)
    if not isinstance(experience, Replay):
        return 0
    return replay_nbytes(blueprint.spaces, experience, actors.fragment_steps, actors.envs)
