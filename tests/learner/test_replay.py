"""Replay: the buffer against a slow one, the sum tree, frequencies, going on after a restore."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.algorithms.base import Replay, State
from headrace.common.errors import Rejected, UsageError
from headrace.common.types import Array, Spaces, Trajectory
from headrace.learner.observations import observation_rows
from headrace.learner.replay import ReplayBuffer, SamplesPerInsert, replay_nbytes
from headrace.learner.sum_tree import SumTree
from tests.learner.replayed import SlowReplay, fragment, numbered, trajectory

COLUMNS = ("obs", "action", "reward", "next_obs", "discount", "weight")


def streams(
    rng: np.random.Generator, data: st.DataObject, T: int, B: int, p_end: float, p_invalid: float
) -> Iterator[Trajectory]:
    """Fragments of two actors in turn: each goes on where the one before ended, but for some that are lost on the way,
    and for some before which the environments were made anew."""
    ended_with: dict[int, Array] = {}
    seq = {0: 0, 1: 0}
    for _ in range(data.draw(st.integers(1, 8))):
        actor, how = data.draw(st.integers(0, 1)), data.draw(st.sampled_from(["goes on"] * 4 + ["lost", "anew"]))
        arrays = fragment(rng, T, B, p_end, p_invalid)
        if actor in ended_with and how != "anew":
            arrays["obs"][0] = ended_with[actor]
        ended_with[actor] = arrays["obs"][T]
        if how != "lost":
            yield trajectory(arrays, actor, seq[actor])
        seq[actor] += 1


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
    T=st.integers(1, 6),
    B=st.integers(1, 3),
    capacity=st.integers(1, 60),
    n_step=st.integers(1, 8),
    stack=st.integers(1, 4),
    p_end=st.sampled_from([0.0, 0.2, 1.0]),
    p_invalid=st.sampled_from([0.0, 0.3]),
    alpha=st.sampled_from([0.0, 0.6]),
)
def test_the_buffer_holds_what_the_slow_one_holds(
    data: st.DataObject, seed: int, T: int, B: int, capacity: int, n_step: int, stack: int, p_end: float,
    p_invalid: float, alpha: float,
) -> None:  # fmt: skip
    replay = Replay(capacity, 1500, 1.0, min_size=1, n_step=n_step, gamma=0.9, stack=stack, priority_alpha=alpha)
    buffer = ReplayBuffer(replay, np.random.default_rng(0))
    slow = SlowReplay(capacity, observation_rows(capacity, T, B), n_step, 0.9, stack)
    for coming in streams(np.random.default_rng(seed), data, T, B, p_end, p_invalid):
        inserted = buffer.insert(coming)
        before = len(slow.transitions)
        slow.insert(coming)
        assert (inserted, buffer.inserted) == (len(slow.transitions) - before, len(slow.transitions))
        held = slow.serials()
        assert len(buffer) == len(held)
        if not p_end and not p_invalid:
            assert len(held) == min(capacity, len(slow.transitions)), "episodes are long: all of the capacity is used"
        if held:
            assert_equal(buffer, slow, held)


def assert_equal(buffer: ReplayBuffer, slow: SlowReplay, held: list[int]) -> None:
    """As many draws as reach all that is held."""
    batch, serials = buffer.sample()
    assert set(serials.tolist()) == set(held)
    for name, dtype in {"action": np.int64, "reward": np.float32, "discount": np.float32, "obs": np.float32}.items():
        assert batch.arrays[name].dtype == dtype
    for serial, i in zip(*np.unique(serials, return_index=True), strict=True):
        expected = slow.transitions[serial]
        for name, row in (("obs", expected["row"]), ("next_obs", expected["next_row"])):
            np.testing.assert_array_equal(batch.arrays[name][i], slow.observation(row), err_msg=f"{serial} {name}")
        assert batch.arrays["action"][i] == expected["action"]
        np.testing.assert_allclose(batch.arrays["reward"][i], expected["reward"], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(batch.arrays["discount"][i], expected["discount"], rtol=1e-6)


def test_a_fragment_with_a_final_observation_too_few_is_rejected_whole() -> None:
    buffer = ReplayBuffer(Replay(10, 2, 1.0, min_size=1), np.random.default_rng(0))
    arrays = fragment(np.random.default_rng(1), 4, 2, p_end=1.0)
    arrays["final_obs"] = arrays["final_obs"][1:]
    with pytest.raises(Rejected, match=r"final_obs has \d rows for \d episode ends"):
        buffer.insert(trajectory(arrays))
    assert (len(buffer), buffer.nbytes) == (0, 0)


def test_a_stack_is_the_last_frames_of_the_episode_and_zeros_before_it() -> None:
    arrays = fragment(np.random.default_rng(0), 4, 1, p_end=0.0, shape=())
    arrays["obs"] = np.array([[1], [2], [3], [4], [5]], np.uint8)
    arrays["terminated"][1, 0], arrays["final_obs"] = True, np.array([9], np.uint8)
    then = {**arrays, "obs": np.array([[5], [6], [7], [8], [9]], np.uint8)}
    then |= {"terminated": np.zeros((4, 1), bool), "final_obs": np.zeros(0, np.uint8)}
    buffer = ReplayBuffer(Replay(8, 200, 1.0, min_size=1, stack=3), np.random.default_rng(0))
    buffer.insert(trajectory(arrays, seq=0))
    buffer.insert(trajectory(then, seq=1))
    batch, serials = buffer.sample()
    obs, next_obs = batch.arrays["obs"].tolist(), batch.arrays["next_obs"].tolist()
    stacks = {int(serial): (obs[i], next_obs[i]) for i, serial in enumerate(serials)}
    assert stacks == {
        0: ([0, 0, 1], [0, 1, 2]),
        1: ([0, 1, 2], [1, 2, 9]),  # the episode's last frame, not the next one's first
        2: ([0, 0, 3], [0, 3, 4]),
        3: ([0, 3, 4], [3, 4, 5]),
        4: ([3, 4, 5], [4, 5, 6]),  # goes on in the next fragment
        5: ([4, 5, 6], [5, 6, 7]),
        6: ([5, 6, 7], [6, 7, 8]),
        7: ([6, 7, 8], [7, 8, 9]),
    }


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=8), capacity=st.integers(1, 20))
def test_the_ring_holds_the_latest_and_sampling_reaches_all_of_them(sizes: list[int], capacity: int) -> None:
    buffer = ReplayBuffer(Replay(capacity, 400, 1.0, min_size=1), np.random.default_rng(0))
    for i, size in enumerate(sizes):
        assert buffer.insert(numbered(size, sum(sizes[:i]))) == size
    batch, serials = buffer.sample()
    total = sum(sizes)
    assert buffer.inserted == total
    assert batch.arrays["reward"].tolist() == serials.tolist()  # a serial number is the transition's own
    assert set(serials.tolist()) == set(range(total - len(buffer), total))
    assert batch.arrays["weight"].tolist() == [1.0] * 400
    if len(set(sizes)) == 1:
        assert len(buffer) == min(total, capacity)


def test_a_minibatch_stays_as_it_is_while_others_are_drawn() -> None:
    buffer = ReplayBuffer(Replay(50, 8, 1.0, min_size=1), np.random.default_rng(0))
    buffer.insert(numbered(50))
    drawn = [buffer.sample()[0].arrays["obs"] for _ in range(20)]
    copies = [obs.copy() for obs in drawn]
    for _ in range(20):
        buffer.sample()
    assert all(np.array_equal(obs, copy) for obs, copy in zip(drawn, copies, strict=True))


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_the_memory_is_known_beforehand_and_taken_at_once(alpha: float, stack: int) -> None:
    replay = Replay(1000, 4, 1.0, min_size=1, priority_alpha=alpha, stack=stack)
    buffer = ReplayBuffer(replay, np.random.default_rng(0))
    buffer.insert(trajectory(fragment(np.random.default_rng(0), 4, 2)))
    before = buffer.nbytes
    assert before == replay_nbytes(Spaces.box((2,), n_actions=3), replay, 4, 2)
    for _ in range(200):
        buffer.insert(trajectory(fragment(np.random.default_rng(0), 4, 2)))
    assert buffer.nbytes == before


def test_the_memory_of_images_is_little_more_than_each_of_them_once() -> None:
    replay = Replay(1_000_000, 256, 1.0, stack=4, priority_alpha=0.6)
    assert replay_nbytes(Spaces.box((84, 84), "uint8", n_actions=6), replay, 64, 8) < 8e9
    box = Replay(10, 1, 1.0, min_size=1)
    rows = (10 // 4 + 2) * 3 * 2 + 1  # the fragments of 2 steps that hold 10, one more, and an end
    assert replay_nbytes(Spaces.box((3, 4), "uint8", action_dim=2), box, 2, 2) == rows * 12 + 10 * (8 + 4 + 8 + 4 + 4)


# --- the sum tree --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data(), capacity=st.integers(1, 40))
def test_the_tree_finds_what_a_running_sum_finds(data: st.DataObject, capacity: int) -> None:
    tree, priorities = SumTree(capacity), np.zeros(capacity)
    for _ in range(data.draw(st.integers(1, 4))):
        slots = data.draw(st.lists(st.integers(0, capacity - 1), min_size=1, max_size=50))
        values = data.draw(st.lists(st.integers(0, 5), min_size=len(slots), max_size=len(slots)))
        tree.set(np.array(slots), np.array(values, float))
        for slot, value in zip(slots, values, strict=True):
            priorities[slot] = value
    assert tree.total == priorities.sum()
    assert tree.get(np.arange(capacity)).tolist() == priorities.tolist()
    if tree.total:
        mass = np.append(np.arange(0, tree.total, 0.5), np.nextafter(tree.total, 0))
        expected = [int(np.flatnonzero(np.cumsum(priorities) > m)[0]) for m in mass]
        assert tree.find(mass).tolist() == expected


def test_rounding_never_finds_an_empty_slot() -> None:
    tree = SumTree(5)
    tree.set(np.arange(3), np.array([0.1, 0.2, 0.3]))
    assert tree.find(np.array([tree.total, tree.total * 2])).tolist() == [2, 2]


# --- prioritised replay --------------------------------------------------------------------------------------------


def prioritised(capacity: int = 8, batch: int = 1000, **kwargs: Any) -> ReplayBuffer:
    replay = Replay(capacity, batch, 1.0, min_size=1, priority_alpha=0.6, priority_beta=0.4, beta_steps=16, **kwargs)
    return ReplayBuffer(replay, np.random.default_rng(3))


def test_frequencies_and_importance_weights_follow_the_priorities() -> None:
    buffer = prioritised()
    buffer.insert(numbered(8))
    errors = np.array([0.0, 0.1, 0.5, 1.0, 2.0, -3.0, 4.0, 10.0])
    buffer.update_priorities(np.arange(8), errors)
    p = (np.abs(errors) + 1e-6) ** 0.6
    p /= p.sum()
    batch, serials = buffer.sample()
    counts = np.bincount(serials, minlength=8)
    assert np.abs(counts - 1000 * p).max() <= 2.0  # stratified: a slot's count is off by its two edges at most
    beta = 0.4 + 0.6 * 8 / 16
    weights = np.array([(8 * p[i]) ** -beta for i in serials])
    np.testing.assert_allclose(batch.arrays["weight"], weights / weights.max(), rtol=1e-5)


def test_new_transitions_come_in_at_the_highest_priority_seen() -> None:
    buffer = prioritised(capacity=100)
    buffer.insert(numbered(2))
    buffer.update_priorities(np.array([0, 1]), np.array([99.0, 1.0]))
    buffer.update_priorities(np.array([0]), np.array([1.0]))  # a fallen priority stays the highest seen
    buffer.insert(numbered(1, 2))
    _, serials = buffer.sample()
    expected = 1000 * 99**0.6 / (99**0.6 + 2)
    assert abs(np.count_nonzero(serials == 2) - expected) <= 2


def test_priorities_of_overwritten_transitions_are_passed_over() -> None:
    buffer = prioritised(capacity=4)
    buffer.insert(numbered(6))
    before = buffer.state().tensors["priority"]
    buffer.update_priorities(np.array([0, 1]), np.array([50.0, 50.0]))  # their slots hold 4 and 5 now
    assert buffer.state().tensors["priority"].tolist() == before.tolist()
    buffer.update_priorities(np.array([4]), np.array([50.0]))
    assert buffer.state().tensors["priority"][0] > 1.0


def test_beta_rises_to_one() -> None:
    buffer = prioritised(capacity=4)
    assert buffer.beta == pytest.approx(0.4)
    buffer.insert(numbered(8))
    assert buffer.beta == pytest.approx(0.7)
    buffer.insert(numbered(40))
    assert buffer.beta == 1.0


# --- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("stack", [1, 3])
@pytest.mark.parametrize("fragments", [0, 2, 9])
def test_after_a_restore_the_samples_go_on_bit_for_bit(alpha: float, stack: int, fragments: int) -> None:
    replay = Replay(20, 16, 1.0, min_size=1, priority_alpha=alpha, n_step=2, stack=stack)
    straight, resumed = ReplayBuffer(replay, np.random.default_rng(1)), ReplayBuffer(replay, np.random.default_rng(9))
    rng = np.random.default_rng(2)
    arrays = [fragment(rng, 4, 1) for _ in range(fragments + 3)]
    for one, other in pairwise(arrays):
        other["obs"][0] = one["obs"][4]
    coming = [trajectory(each, seq=i) for i, each in enumerate(arrays)]
    errors = rng.normal(size=(fragments + 6, 16))

    def go_on(buffer: ReplayBuffer, first: int, last: int) -> list[Array]:
        seen: list[Array] = []
        for i in range(first, last):
            buffer.insert(coming[i])
            batch, serials = buffer.sample()
            buffer.update_priorities(serials, errors[i])
            seen += [serials, *(batch.arrays[name] for name in COLUMNS)]
        return seen

    go_on(straight, 0, fragments)
    saved = straight.state()
    resumed.restore(State(saved.tensors, json.loads(json.dumps(saved.values)), saved.blocks))
    expected = go_on(straight, fragments, fragments + 3)
    for array, other in zip(expected, go_on(resumed, fragments, fragments + 3), strict=True):
        np.testing.assert_array_equal(array, other)
        assert array.dtype == other.dtype
    assert straight.state().values == resumed.state().values


def test_a_saved_buffer_does_not_change_afterwards() -> None:
    buffer = prioritised(capacity=4)
    buffer.insert(numbered(4))
    saved = buffer.state()
    before = [array.copy() for array in everything(saved)]
    buffer.insert(numbered(3, 4))
    buffer.update_priorities(np.array([4]), np.array([9.0]))
    buffer.insert(numbered(9, 4))
    assert len(before) == 1 + 1 + 5
    for array, copy in zip(everything(saved), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def everything(state: State) -> list[Array]:
    return [*state.tensors.values(), *(array for block in state.blocks.values() for array in block.read().values())]


@pytest.mark.parametrize(
    "other",
    [
        Replay(50, 4, 1.0, min_size=1),
        Replay(20, 4, 1.0, min_size=1, priority_alpha=0.6),
        Replay(20, 4, 1.0, min_size=1, stack=4),
    ],
)
def test_another_configurations_buffer_is_refused(other: Replay) -> None:
    buffer = ReplayBuffer(Replay(20, 4, 1.0, min_size=1), np.random.default_rng(0))
    buffer.insert(numbered(30))
    with pytest.raises(
        UsageError, match="replay: the saved buffer holds 20 transitions, drawn uniformly, this configuration "
    ):
        ReplayBuffer(other, np.random.default_rng(0)).restore(buffer.state())


@pytest.mark.parametrize(
    ("replay", "named"),
    [
        (Replay(0, 1, 1.0, min_size=0), "capacity"),
        (Replay(9, 0, 1.0, min_size=0), "batch"),
        (Replay(9, 1, 1.0, min_size=10), "min_size"),
        (Replay(9, 1, 1.0, min_size=1, n_step=0), "n_step"),
        (Replay(9, 1, 1.0, min_size=1, stack=0), "stack"),
    ],
)
def test_impossible_settings_are_refused(replay: Replay, named: str) -> None:
    with pytest.raises(UsageError, match=f"replay: {named} is"):
        ReplayBuffer(replay, np.random.default_rng(0))


# --- pacing --------------------------------------------------------------------------------------------------------


def test_samples_per_insert_is_kept_from_min_size_on_without_a_burst() -> None:
    pace = SamplesPerInsert(samples_per_insert=4.0, batch=64, min_size=1000)
    assert pace.insert(900) == 0
    assert pace.insert(110) == 0  # 10 above min_size: 40 samples owed, not a minibatch yet
    assert pace.insert(6) == 1  # 64 owed
    assert [pace.insert(100) for _ in range(4)] == [6, 6, 6, 7]  # 6.25 each, the remainder carried


@given(st.lists(st.integers(0, 300), max_size=30), st.integers(0, 500), st.sampled_from([0.25, 1.0, 8.0, 32.0]))
def test_the_sum_of_due_minibatches_does_not_depend_on_how_inserts_are_cut(
    counts: list[int], min_size: int, ratio: float
) -> None:
    pace = SamplesPerInsert(ratio, 32, min_size)
    due = sum(pace.insert(count) for count in counts)
    assert due == int(max(0, sum(counts) - min_size) * ratio // 32)
