"""Checkpoints of a replay buffer: what changed is written, the rest linked; nothing is copied whole."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.algorithms.base import Replay, State
from headrace.common.errors import UsageError
from headrace.common.types import Array, Trajectory
from headrace.learner import checkpoint_reader, ring
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.learner.replay import ReplayBuffer
from tests.learner.replayed import fragment, trajectory

REPLAY = Replay(600, 32, 1.0, min_size=1, n_step=3, priority_alpha=0.6, stack=2)


class System:
    """The module os without the waiting of fsync; ``on`` is called before each step of that name."""

    def __init__(self, **on: Callable[[], None]) -> None:
        self.on = on

    def __getattr__(self, name: str) -> Any:
        self.on.get(name, lambda: None)()
        return getattr(os, name)

    def fsync(self, fd: int) -> None:
        pass


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some thirty of them in a buffer of REPLAY, so that most stay as they are from one checkpoint to the next."""
    monkeypatch.setattr(ring, "BLOCK_BYTES", 1000)


def fragments(count: int, seed: int = 0) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    return [trajectory(fragment(rng, 8, 2), seq=i) for i in range(count)]


def filled(count: int = 60, seed: int = 0) -> ReplayBuffer:
    buffer = ReplayBuffer(REPLAY, np.random.default_rng(seed))
    for coming in fragments(count, seed):
        buffer.insert(coming)
    return buffer


def save(writer: CheckpointWriter, step: int, buffer: ReplayBuffer) -> Path:
    return writer.save(step, {"experience": buffer.state()}, {})


def restored(path: Path) -> ReplayBuffer:
    buffer = ReplayBuffer(REPLAY, np.random.default_rng(7))
    buffer.restore(checkpoint_reader.load(path).parts["experience"])
    return buffer


def drawn(buffer: ReplayBuffer, rounds: int = 5) -> list[Array]:
    """What it gives from now on, further fragments and priorities included."""
    seen: list[Array] = []
    for coming in fragments(rounds, seed=99):
        batch, serials = buffer.sample()
        buffer.update_priorities(serials, batch.arrays["reward"])
        buffer.insert(coming)
        seen += [serials, *batch.arrays.values()]
    return seen


def assert_same(buffer: ReplayBuffer, other: ReplayBuffer) -> None:
    for array, wanted in zip(drawn(buffer), drawn(other), strict=True):
        np.testing.assert_array_equal(array, wanted, strict=True)


def blocks(path: Path) -> dict[str, os.stat_result]:
    return {p.name: p.stat() for p in path.glob("experience.*.*.safetensors")}


def test_what_changed_is_written_and_the_rest_linked(tmp_path: Path) -> None:
    buffer = filled()
    with CheckpointWriter(tmp_path, keep=2, fs=System()) as writer:
        first = blocks(save(writer, 1, buffer))
        assert len(first) >= 30
        assert {stat.st_nlink for stat in first.values()} == {1}
        buffer.insert(fragments(1)[0])
        path = save(writer, 2, buffer)
        second = blocks(path)
        fresh = {name for name, stat in second.items() if stat.st_ino not in {s.st_ino for s in first.values()}}
        assert {name.split(".")[1] for name in fresh} == {"obs", "transitions"}
        assert len(fresh) <= 6, "18 to 34 rows of observations and 16 transitions, a few in each block"
        assert {second[name].st_nlink for name in second.keys() - fresh} == {2}
        buffer.update_priorities(np.array([buffer.inserted - 1]), np.array([2.0]))
        path = save(writer, 3, buffer)  # the first one goes
        assert [p.name[-1] for p in sorted(tmp_path.glob("ckpt-*"))] == ["2", "3"]
        assert {stat.st_nlink for stat in blocks(path).values()} == {2}, "priorities are no part of the blocks"
    assert_same(restored(path), buffer)


def test_a_learner_that_goes_on_links_to_what_it_was_restored_from(tmp_path: Path) -> None:
    with CheckpointWriter(tmp_path, fs=System()) as writer:
        save(writer, 1, filled())
    with CheckpointWriter(tmp_path, fs=System()) as writer:
        found = writer.latest()
        assert found is not None
        buffer = ReplayBuffer(REPLAY, np.random.default_rng(7))
        buffer.restore(found.parts["experience"])
        assert {stat.st_nlink for stat in blocks(save(writer, 2, buffer)).values()} == {2}
        buffer.insert(fragments(1)[0])
        path = save(writer, 3, buffer)
    assert sorted({stat.st_nlink for stat in blocks(path).values()}) == [1, 3]
    assert_same(restored(path), buffer)


def test_a_checkpoint_is_of_one_moment_though_inserts_go_on_while_it_is_written(tmp_path: Path) -> None:
    buffer, same = filled(), filled()
    coming = iter(fragments(10_000, seed=3))

    def insert() -> None:
        buffer.insert(next(coming))

    with CheckpointWriter(tmp_path, fs=System(write=insert)) as writer:
        state = buffer.state()
        insert()
        path = writer.save(1, {"experience": state}, {})
        assert buffer.inserted > 2 * REPLAY.capacity, "all of it was written over"
        assert_same(restored(path), same)
        # And the next one links nothing that has changed since.
        before, state = restored(save(writer, 2, buffer)), buffer.state()
        after = ReplayBuffer(REPLAY, np.random.default_rng(7))
        after.restore(state)
    assert before.inserted < after.inserted


def test_a_link_that_cannot_be_made_is_a_file_written(tmp_path: Path) -> None:
    def refuse() -> None:
        raise PermissionError(1, "Operation not permitted")

    buffer = filled()
    with CheckpointWriter(tmp_path, keep=5, fs=System(link=refuse)) as writer:
        for step in (1, 2):
            path = save(writer, step, buffer)
        assert {stat.st_nlink for stat in blocks(path).values()} == {1}
    with CheckpointWriter(tmp_path, keep=5, fs=System()) as writer:
        path = save(writer, 3, buffer)
        cut, gone = sorted(path.glob("experience.obs.*"))[:2]
        cut.write_bytes(cut.read_bytes()[:-1])
        gone.unlink()
        path = save(writer, 4, buffer)
    assert_same(restored(path), buffer)


def test_a_damaged_block_is_named_wherever_it_is_linked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer = filled()
    with CheckpointWriter(tmp_path, fs=System()) as writer:
        for step in (1, 2):
            save(writer, step, buffer)
        buffer.insert(fragments(1)[0])
        path = save(writer, 3, buffer)
    own = next(path / name for name, stat in blocks(path).items() if stat.st_nlink == 1)
    damage(own)
    with pytest.raises(UsageError, match=f"{own.name} does not have the sha256 its manifest says"):
        checkpoint_reader.load(path)
    assert checkpoint_reader.load(path, parts=[]).step == 3, "what is not asked for is not looked at"
    found = checkpoint_reader.latest(tmp_path)
    assert found is not None
    assert found.step == 2
    damage(next(path / name for name, stat in blocks(path).items() if stat.st_nlink == 3))
    assert checkpoint_reader.latest(tmp_path) is None
    assert len(caplog.records) == 4


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("block_bytes", [300, 1700, 1 << 20])
def test_blocks_of_another_size_are_read(tmp_path: Path, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = filled()
    with CheckpointWriter(tmp_path, fs=System()) as writer:
        path = save(writer, 1, buffer)
        monkeypatch.setattr(ring, "BLOCK_BYTES", block_bytes)
        other = restored(path)
        path = save(writer, 2, other)
    assert_same(other, buffer)
    assert_same(restored(path), filled())


@pytest.mark.parametrize("left_out", ["obs.", "obs.000001", "transitions.000000", ""])
def test_missing_blocks_are_refused(left_out: str) -> None:
    state = filled().state()
    kept = {name: block for name, block in state.blocks.items() if not name.startswith(left_out)}
    with pytest.raises(UsageError, match="replay: the saved blocks hold"):
        ReplayBuffer(REPLAY, np.random.default_rng(0)).restore(State(state.tensors, state.values, kept))


def test_memory_is_that_of_a_block_not_of_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "BLOCK_BYTES", 1 << 20)
    replay = Replay(4000, 8, 1.0, min_size=1, stack=4)
    rng, buffer = np.random.default_rng(0), ReplayBuffer(replay, np.random.default_rng(0))
    images = fragment(rng, 50, 4, p_end=0.0, shape=(84, 84))
    images |= {name: images[name].astype(np.uint8) for name in ("obs", "final_obs")}
    for seq in range(25):
        buffer.insert(trajectory(images, seq=seq))
    assert buffer.nbytes > 25e6
    with CheckpointWriter(tmp_path, fs=System()) as writer:
        tracemalloc.start()
        try:
            path = save(writer, 1, buffer)
            buffer.insert(trajectory(images))
            save(writer, 2, buffer)
            saving = tracemalloc.get_traced_memory()[1]
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            other = ReplayBuffer(replay, np.random.default_rng(0))
            other.restore(checkpoint_reader.load(path).parts["experience"])
            restoring = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
    assert saving < 6 << 20
    assert restoring < buffer.nbytes + (6 << 20)
    assert json.loads((path / "experience.json").read_text())["inserted"] == 5000
