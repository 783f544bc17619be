"""The serial runner: every role in one process, the same ``step()``s in turn. The reference for all that is not.

each worker: step (until no lease is left) -> learner: step -> ...
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.common.metrics import Metrics
from headrace.common.transport.memory import Memory
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.config import Config
from headrace.learner.counters import Identity, TrainResult
from headrace.learner.loop import Learner
from headrace.paramserver.inprocess import InProcess
from headrace.paramserver.lockstep import make_ledger
from headrace.paramserver.store import Store


def run_serial(
    config: Config,
    on_version: Callable[[Learner, TrainResult], None] = lambda learner, trained: None,
    versions: int = 0,
) -> Learner:
    """Train to the end of ``run.total_steps`` (or for ``versions`` versions); returns the learner as it stands."""
    import torch

    torch.set_num_threads(config.learner.threads)
    blueprint = Blueprint(with_addresses(config))
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
