"""A learner restored from a checkpoint and fed the same later fragments is the one that never stopped, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from headrace.algorithms.base import State
from headrace.common.metrics import Metrics
from headrace.common.transport.memory import Memory
from headrace.common.types import Trajectory
from headrace.common.weights.base import LedgerState
from headrace.launch import load as configuration
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.config import Config
from headrace.launch.serial import run_serial
from headrace.learner.checkpoint_reader import Checkpoint, load
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.learner.counters import Identity
from headrace.learner.loop import Learner
from headrace.paramserver.inprocess import InProcess
from headrace.paramserver.lockstep import make_ledger
from headrace.paramserver.store import Store

DQN = ("cartpole-dqn", "actors.envs=2", "algorithm.min_size=50", "algorithm.capacity=300", "algorithm.minibatch=16",
       "algorithm.fragments=2", "algorithm.n_step=3", "algorithm.samples_per_insert=2")  # fmt: skip
KINDS = {
    "ppo": ("cartpole-ppo", "actors.envs=2", "actors.fragment_steps=32", "algorithm.minibatch=24"),
    "recurrent ppo": ("cartpole-recurrent-ppo", "actors.envs=3", "actors.fragment_steps=32", "algorithm.minibatch=64",
                      "algorithm.fragments=2", "algorithm.hidden=[16]", "algorithm.memory_width=8"),
    "dqn uniform": DQN,
    "dqn prioritised": (*DQN, "algorithm.priority_alpha=0.6", "algorithm.dueling=true"),
    "r2d2": ("cartpole-r2d2", "actors.envs=2", "actors.fragment_steps=16", "algorithm.min_size=5",
             "algorithm.capacity=20", "algorithm.minibatch=4", "algorithm.fragments=2", "algorithm.hidden=[16]",
             "algorithm.memory_width=8"),
    "sac": ("pendulum-sac", "actors.envs=2", "algorithm.min_size=50", "algorithm.capacity=300",
            "algorithm.minibatch=16", "algorithm.samples_per_insert=16"),
    "grpo": ("cartpole-grpo", "algorithm.groups=2", "algorithm.group_size=3", "algorithm.max_steps=40",
             "algorithm.kl_coef=0.1", "algorithm.reference_every=5"),
}  # fmt: skip
VERSIONS, AT = 16, 7


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_learner_is_the_one_that_never_stopped(kind: str, tmp_path: Path) -> None:
    preset, *settings = KINDS[kind]
    config = with_addresses(configuration.load(preset, ["run.total_steps=100_000", *settings]))
    fragments: list[Trajectory] = []
    run_serial(config, lambda _, trained: fragments.extend(trained.fragments), VERSIONS)

    whole = make_learner(config)
    feed(whole, fragments, until=AT)
    with CheckpointWriter(tmp_path) as writer:
        path = writer.save(AT, *whole.learner.snapshot())
    feed(whole, fragments, until=VERSIONS)

    restored = make_learner(config, load(path))
    assert restored.learner.counters.version == AT
    feed(restored, fragments, until=VERSIONS)

    (parts, info), (other_parts, other_info) = whole.learner.snapshot(), restored.learner.snapshot()
    for name, part in parts.items():
        assert_equal(part, other_parts[name])
    assert info["spent"] == other_info["spent"]
    for counters in (info["counters"], other_info["counters"]):
        del counters["trained_s"]
    assert info["counters"] == other_info["counters"]
    for learner in (whole, restored):
        learner.learner.close()


@dataclass(frozen=True)
class Fed:
    """A learner in this process, and the carrier it is fed through."""

    learner: Learner
    carrier: Memory
    issued: Issued


class Issued(InProcess):
    """A parameter server that has issued every lease to whoever comes with it."""

    def __init__(self) -> None:
        super().__init__(Store(make_ledger(0)))
        self.out: dict[int, tuple[int, int, int]] = {}

    def listen(self, hear: Callable[[LedgerState, int], None]) -> None:
        super().listen(
            lambda state, ticket: hear(replace(state, next_lease=1000, out=tuple(self.out.values())), ticket)
        )


def make_learner(config: Config, saved: Checkpoint | None = None) -> Fed:
    blueprint = Blueprint(config)
    carrier, issued = Memory(blueprint.limits), Issued()
    learner = Learner(
        Identity(config.run.id, 2 if saved else 1),
        blueprint.algorithm(),
        carrier,
        issued,
        blueprint.check_fragment,
        Metrics("learner"),
        seed=config.run.seed,
        max_staleness=config.learner.max_staleness,
        total_steps=config.run.total_steps,
        queue_bytes=config.transport.queue_bytes,
        resume=saved.parts if saved else None,
        info=saved.info if saved else None,
    )
    learner.start()
    return Fed(learner, carrier, issued)


def feed(fed: Fed, fragments: Sequence[Trajectory], until: int) -> None:
    """Those it has not trained on, in their order, until it has made version ``until``."""
    left = iter(fragments[fed.learner.counters.fragments :])
    while fed.learner.counters.version < until:
        fragment = replace(next(left), learner_epoch=fed.learner.identity.learner_epoch)
        fed.issued.out[fragment.lease] = (fragment.lease, fragment.actor_id, fragment.incarnation)
        fed.carrier.put(fragment)
        fed.learner.step(timeout_s=5.0)


def assert_equal(part: State, other: State) -> None:
    assert json.loads(json.dumps(part.values)) == json.loads(json.dumps(other.values))
    assert sorted(part.tensors) == sorted(other.tensors)
    for name, tensor in part.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert tensor.tobytes() == other.tensors[name].tobytes(), name
    assert sorted(part.blocks) == sorted(other.blocks)
    for name, block in part.blocks.items():
        arrays = other.blocks[name].read()
        assert all(array.tobytes() == arrays[key].tobytes() for key, array in block.read().items()), name
