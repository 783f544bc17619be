"""``max_staleness = 0``: real processes make the serial runner's parameters, bit for bit, however many they are."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.algorithms.base import State
from headrace.common.errors import TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport import Limits
from headrace.common.transport.local_sink import LocalSink
from headrace.launch.config import Config
from headrace.launch.load import load
from headrace.launch.serial import run_serial
from headrace.learner import checkpoint_reader
from tests.faults.run import Run
from tests.ports import free_port

from .runs import train

VERSIONS, STREAMS = 20, 4
#: Four workers in all; their fragments are two to a version, so that workers take turns across versions. The run's name
#: is its own: others of that name on this machine would have the same sockets.
LOCKSTEP = ["learner.max_staleness=0", "learner.device=cpu", "run.seed=3", f'run.id="lockstep-{os.getpid()}"']
PPO = ["actors.envs=4", "actors.fragment_steps=32", "run.total_steps=5120", "algorithm.minibatch=64"]
#: preset -> what makes about 20 short versions of it
SMALL = {
    "cartpole-ppo": PPO,
    "cartpole-recurrent-ppo": [*PPO, "algorithm.fragments=2", "algorithm.hidden=[16]", "algorithm.memory_width=8"],
    "cartpole-dqn": ["actors.envs=4", "actors.fragment_steps=32", "run.total_steps=2560", "algorithm.min_size=512"],
    "cartpole-r2d2": ["actors.envs=4", "actors.fragment_steps=16", "run.total_steps=1280", "algorithm.min_size=16",
                      "algorithm.hidden=[16]", "algorithm.memory_width=8", "algorithm.minibatch=8"],
    "pendulum-sac": ["actors.fragment_steps=32", "run.total_steps=2560", "algorithm.min_size=512",
                     "algorithm.samples_per_insert=32"],
    "cartpole-grpo": ["algorithm.group_size=4", "algorithm.groups=2", "run.total_steps=4000"],
}  # fmt: skip


def shared_out(preset: str, processes: int) -> list[str]:
    return [*LOCKSTEP, *SMALL[preset], f"actors.processes={processes}", f"actors.workers={STREAMS // processes}"]


def serial(preset: str, *overrides: str) -> tuple[dict[str, State], dict[str, int]]:
    """Parts and counters of the serial runner's learner at its end."""
    return serial_of(load(preset, [*shared_out(preset, 1), *overrides]))


def serial_of(config: Config) -> tuple[dict[str, State], dict[str, int]]:
    parts, info = run_serial(config).snapshot()
    return parts, info["counters"]


def processes(preset: str, run_dir: Path, count: int, *overrides: str) -> tuple[Mapping[str, State], dict[str, int]]:
    """The same from the last checkpoint of a run with ``count`` actor processes."""
    train(preset, run_dir, [*shared_out(preset, count), *overrides])
    saved = checkpoint_reader.latest(run_dir / "checkpoints")
    assert saved is not None
    return saved.parts, saved.info["counters"]


def whichever_life(values: Mapping[str, Any]) -> dict[str, Any]:
    """A replay buffer of stacks knows the latest fragment of each life of an actor, and a life is a random number."""
    buffer = values.get("buffer", {})
    obs = buffer.get("obs", {})
    ends = [[actor, *end] for actor, _, *end in obs.get("ends", [])]
    return {**values, "buffer": {**buffer, "obs": {**obs, "ends": ends}}}


def assert_equal(found: tuple[Mapping[str, State], dict[str, int]], wanted: tuple[Mapping[str, State], dict[str, int]]):
    for part in ("algorithm", "experience"):
        ours, theirs = found[0][part], wanted[0][part]
        assert ours.tensors.keys() == theirs.tensors.keys()
        for name, tensor in theirs.tensors.items():
            np.testing.assert_array_equal(ours.tensors[name], tensor, err_msg=f"{part}: {name}", strict=True)
        assert whichever_life(ours.values) == whichever_life(theirs.values)
        assert ours.blocks.keys() == theirs.blocks.keys()
        for name, block in theirs.blocks.items():
            for key, array in block.read().items():
                np.testing.assert_array_equal(ours.blocks[name].read()[key], array, err_msg=name, strict=True)
    assert {k: v for k, v in found[1].items() if k != "trained_s"} == {
        k: v for k, v in wanted[1].items() if k != "trained_s"
    }


@pytest.mark.parametrize("count", [1, 2, 4])
def test_ppo_is_the_serial_runners_bit_for_bit(tmp_path, count):
    wanted = serial("cartpole-ppo")
    assert wanted[1]["version"] == VERSIONS
    assert_equal(processes("cartpole-ppo", tmp_path / "run", count), wanted)


@pytest.mark.parametrize("preset", ["cartpole-dqn", "cartpole-r2d2", "pendulum-sac", "cartpole-grpo"])
def test_replay_and_groups_are_too(tmp_path, preset):
    wanted = serial(preset)
    assert wanted[1]["version"] >= VERSIONS / 2
    assert_equal(processes(preset, tmp_path / "run", 2), wanted)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_policy_that_remembers_is_too(tmp_path, count):
    wanted = serial("cartpole-recurrent-ppo")
    assert wanted[1]["version"] == VERSIONS
    assert_equal(processes("cartpole-recurrent-ppo", tmp_path / "run", count), wanted)


def test_continuous_actions_are_too(tmp_path):
    wanted = serial("cartpole-ppo", "task.env=Pendulum-v1")
    assert_equal(processes("cartpole-ppo", tmp_path / "run", 2, "task.env=Pendulum-v1"), wanted)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_network_that_acts_by_its_graph_is_too(tmp_path, count):
    pixels = ["task.env=tests.tasks.pixel_envs:Catch-v0", "algorithm.network=nature_cnn", "algorithm.hidden=[16]",
              "actors.envs=2", "actors.fragment_steps=16", "run.total_steps=640"]  # fmt: skip
    wanted = serial("cartpole-ppo", *pixels)
    assert wanted[1]["version"] == 10
    assert_equal(processes("cartpole-ppo", tmp_path / "run", count, *pixels), wanted)


FRAMES = ["task.env=tests.tasks.pixel_envs:Catch-v0", "algorithm.network=nature_cnn", "algorithm.hidden=[16]",
          "algorithm.frame_stack=4", "actors.envs=2", "actors.fragment_steps=16", "run.total_steps=640"]  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 4])
def test_stacked_frames_are_too(tmp_path, count):
    wanted = serial("cartpole-ppo", *FRAMES)
    assert wanted[1]["version"] == 10
    assert_equal(processes("cartpole-ppo", tmp_path / "run", count, *FRAMES), wanted)


def test_stacked_frames_from_replay_are_too(tmp_path):
    replay = [*FRAMES, "algorithm.min_size=128", "algorithm.samples_per_insert=4", "algorithm.minibatch=32"]
    wanted = serial("cartpole-dqn", *replay)
    assert wanted[1]["version"] >= 10
    assert_equal(processes("cartpole-dqn", tmp_path / "run", 2, *replay), wanted)


@contextlib.contextmanager
def junk(path: Path) -> Iterator[None]:
    """Inside, somebody puts what is no record into the carrier at ``path``, from its learner's start to its end."""
    stop = threading.Event()

    def pester() -> None:
        sink = LocalSink(f"local://{path}", Limits(), Metrics("actor"), "junk", reconnect_s=60.0)
        with contextlib.suppress(TransportError):  # the learner has come to its end
            while not stop.wait(0.005):
                sink.put_frame([b"junk" * 25])
        sink.close(timeout_s=0.0)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_junk_moves_no_lease(tmp_path):
    """A lease refunded that nobody had spent would let fragments overtake each other for good."""
    wanted = serial("cartpole-ppo")
    with junk(tmp_path / "t"):
        found = processes("cartpole-ppo", tmp_path / "run", 2, f"transport.url='local://{tmp_path}/t'")
    refused = found[1].pop("rejected")
    assert refused.keys() == {"malformed"}
    assert refused["malformed"] > 20
    assert wanted[1].pop("rejected") == {}
    assert_equal(found, wanted)


def test_another_seed_makes_other_parameters():
    """The comparison can fail."""
    with pytest.raises(AssertionError, match=r"algorithm: pi\."):
        assert_equal(serial("cartpole-ppo"), serial("cartpole-ppo", "run.seed=4"))


def test_it_is_below_relays_too(tmp_path):
    """Two actors, one below a relay of a relay, one at the root."""
    root, first, second = (f"127.0.0.1:{free_port()}" for _ in range(3))
    (tmp_path / "a").mkdir()
    run = Run(tmp_path / "a", "ppo", *shared_out("cartpole-ppo", 2), f"weights.address={root}",
              "run.checkpoint_every_s=60")  # fmt: skip
    try:
        wanted = serial_of(run.config)
        run.role("paramserver")
        for index, (parent, address) in enumerate([(root, first), (first, second)]):
            run.role("paramserver", "--upstream", parent, "--index", str(index), "--set", f"weights.address={address}")
        learner = run.role("learner")
        for index, address in enumerate([second, root]):
            run.role("actor", "--index", str(index), "--set", f"weights.address={address}")
        assert run.end(learner) == (0, "")
        assert_equal((run.checkpoint().parts, run.checkpoint().info["counters"]), wanted)
    finally:
        run.close()
