"""The serial runner: every role in one process, the same ``step()``s in turn. The reference for all that is not.

each worker: step (until no lease is left) -> learner: step -> ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.common.metrics import Metrics
from headrace.common.transport.memory import Memory
from headrace.common.types import Weights
from headrace.launch.agent import Agent
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.launch.python_settings import flat, plain, words
from headrace.learner.counters import Identity, TrainResult
from headrace.learner.loop import Learner
from headrace.paramserver.inprocess import InProcess
from headrace.paramserver.lockstep import make_ledger
from headrace.paramserver.store import Store


@dataclass(frozen=True)
class SerialRun:
    """What :func:`train_serial` leaves: its ``config``, and its ``learner`` as it stands, with ``learner.algorithm``
    (the networks), ``learner.experience`` and ``learner.counters``."""

    config: Config
    learner: Learner

    def agent(self) -> Agent:
        """The policy as it is now, to act with."""
        counters, (tensors, scalars) = self.learner.counters, self.learner.algorithm.weights()
        return Agent(self.config, Weights("", 0, counters.version, tensors, scalars, counters.env_steps))


def train_serial(
    what: str | os.PathLike[str] | Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    *,
    on_version: Callable[[Learner, TrainResult], object] | None = None,
    versions: int = 0,
) -> SerialRun:
    """Train in this process and thread: one role after the other, no processes, nothing on the disk. For debuggers,
    which may stop anywhere in it, and for notebooks: classes that are defined in them work here.

    ``what`` and ``settings``: as of :func:`headrace.train`. ``on_version`` is called after every version with the
    learner and what the version was made of (``fragments``, ``staleness``, the algorithm's ``metrics``). ``versions``:
    end after so many of them (0: at ``run.total_steps``). With ``learner.max_staleness`` 0 the numbers are those of a
    run of processes, to the bit; torch arrives with it.

    Raises :class:`UsageError` for wrong settings, :class:`HeadraceError` where an environment fails, and what
    ``on_version`` and a network or an algorithm of your own raise.
    """
    config = load(plain(what, "settings"), words(flat(settings or {})))
    learner = run_serial(config, on_version or (lambda learner, trained: None), versions)
    return SerialRun(config, learner)


def run_serial(
    config: Config,
    on_version: Callable[[Learner, TrainResult], object] = lambda learner, trained: None,
    versions: int = 0,
) -> Learner:
    """Train to the end of ``run.total_steps`` (or for ``versions`` versions); returns the learner as it stands."""
    import torch

    torch.set_num_threads(config.learner.threads)
    blueprint = Blueprint(with_addresses(config), watched=False)
    blueprint.check()
    config, metrics = blueprint.config, Metrics("serial")
    carrier, server = Memory(blueprint.limits), InProcess(Store(make_ledger(blueprint.lockstep_workers)))
    learner = Learner(
        Identity(config.run.id, 1),
        blueprint.algorithm(),
        carrier,
        server,
        blueprint.check_fragment,
        metrics,
        seed=config.run.seed,
        max_staleness=config.learner.max_staleness,
        total_steps=config.run.total_steps,
        queue_bytes=config.transport.queue_bytes,
    )
    workers = [
        blueprint.rollout_worker(i, i, server.subscriber(config.run.id, i, i), carrier, metrics)
        for i in range(blueprint.config.workers)
    ]
    try:
        learner.start()
        while not learner.done and (not versions or learner.counters.version < versions):
            for worker in workers:
                worker.step(timeout_s=0.0)
            while (trained := learner.step(timeout_s=0.01)) is None and learner.backlog():
                pass
            if trained is not None:
                on_version(learner, trained)
    finally:
        for worker in workers:
            worker.close()
        learner.close()
    return learner
