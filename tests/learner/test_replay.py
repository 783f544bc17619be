"""Replay: transitions against a slow version, the ring, the sum tree, frequencies, going on after a restore."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.algorithms.base import Replay
from headrace.common.errors import Rejected, UsageError
from headrace.common.types import Array, Spaces, Trajectory
from headrace.learner.replay import COLUMNS, ReplayBuffer, SamplesPerInsert, n_step_transitions, replay_nbytes
from headrace.learner.sum_tree import SumTree

SPACES = Spaces((2,), n_actions=3)


def fragment(rng: np.random.Generator, T: int, B: int, p_end: float = 0.2, p_invalid: float = 0.0) -> dict[str, Array]:
    """Random arrays; every observation is unlike every other."""
    terminated, truncated = rng.random((T, B)) < p_end / 2, rng.random((T, B)) < p_end / 2
    arrays = {
        "obs": rng.normal(size=(T + 1, B, 2)).astype(np.float32),
        "action": rng.integers(0, 3, (T, B)),
        "reward": rng.normal(size=(T, B)).astype(np.float32),
        "terminated": terminated,
        "truncated": truncated,
        "final_obs": rng.normal(size=(int((terminated | truncated).sum()), 2)).astype(np.float32),
    }
    if p_invalid:
        arrays["valid"] = rng.random((T, B)) >= p_invalid
    return arrays


def trajectory(arrays: dict[str, Array]) -> Trajectory:
    T, B = arrays["reward"].shape
    return Trajectory("run", 0, 0, 0, 0, 0, 0, "task", "", T, B, arrays)


def numbered(count: int, start: int = 0) -> Trajectory:
    """``count`` one-step transitions whose reward is their number."""
    arrays = fragment(np.random.default_rng(0), count, 1, p_end=0.0)
    return trajectory(arrays | {"reward": np.arange(start, start + count, dtype=np.float32)[:, None]})


def slow_transitions(arrays: dict[str, Array], n_step: int, gamma: float) -> list[dict[str, Any]]:
    """One step after the other, as one would explain it."""
    T, B = arrays["reward"].shape
    valid = arrays.get("valid", np.ones((T, B), bool))
    finals, final_at = iter(arrays["final_obs"]), {}
    for t in range(T):
        for b in range(B):
            if arrays["terminated"][t, b] or arrays["truncated"][t, b]:
                final_at[t, b] = next(finals)
    rows = []
    for t in range(T):
        for b in range(B):
            if not valid[t, b]:
                continue
            ret, k = 0.0, 0
            while True:
                ret += gamma**k * float(arrays["reward"][t + k, b])
                k += 1
                at = (t + k - 1, b)
                if at in final_at:
                    next_obs = final_at[at]
                    break
                next_obs = arrays["obs"][t + k, b]
                if k == n_step or t + k == T or not valid[t + k, b]:
                    break
            discount = 0.0 if arrays["terminated"][at] else gamma**k
            row = {"obs": arrays["obs"][t, b], "action": arrays["action"][t, b], "next_obs": next_obs}
            rows.append(row | {"reward": ret, "discount": discount})
    return rows


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    T=st.integers(1, 9),
    B=st.integers(1, 4),
    n_step=st.integers(1, 12),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    p_end=st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    p_invalid=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_transitions_equal_the_slow_version(
    seed: int, T: int, B: int, n_step: int, gamma: float, p_end: float, p_invalid: float
) -> None:
    arrays = fragment(np.random.default_rng(seed), T, B, p_end, p_invalid)
    slow = slow_transitions(arrays, n_step, gamma)
    fast = n_step_transitions(arrays, n_step, gamma)
    assert {len(column) for column in fast.values()} == {len(slow)}
    for i, row in enumerate(slow):
        for name, value in row.items():
            np.testing.assert_allclose(fast[name][i], value, rtol=1e-6, atol=1e-6, err_msg=f"row {i} {name}")


def test_termination_stops_the_value_and_truncation_does_not() -> None:
    arrays = fragment(np.random.default_rng(0), 3, 2, p_end=0.0)
    arrays["reward"][:] = 1.0
    arrays["terminated"][1, 0], arrays["truncated"][1, 1] = True, True
    arrays["final_obs"] = np.array([[7.0, 7.0], [8.0, 8.0]], np.float32)
    found = n_step_transitions(arrays, n_step=3, gamma=0.5)
    assert found["reward"].tolist() == [1.5, 1.5, 1.0, 1.0, 1.0, 1.0]
    assert found["discount"].tolist() == [0.0, 0.25, 0.0, 0.5, 0.5, 0.5]
    assert found["next_obs"][:4, 0].tolist() == [7.0, 8.0, 7.0, 8.0]
    assert found["next_obs"][4:].tolist() == arrays["obs"][3].tolist()  # the fragment's end cuts the window short


def test_one_final_observation_per_episode_end_or_the_fragment_is_rejected_whole() -> None:
    buffer = ReplayBuffer(Replay(10, 2, 1.0, min_size=1), np.random.default_rng(0))
    arrays = fragment(np.random.default_rng(1), 4, 2, p_end=1.0)
    arrays["final_obs"] = arrays["final_obs"][1:]
    with pytest.raises(Rejected, match=r"final_obs has \d rows for \d episode ends") as caught:
        buffer.insert(trajectory(arrays))
    assert caught.value.reason == "shape"
    assert len(buffer) == 0


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=8), capacity=st.integers(1, 20))
def test_the_ring_holds_the_latest_and_sampling_reaches_all_of_them(sizes: list[int], capacity: int) -> None:
    buffer = ReplayBuffer(Replay(capacity, 400, 1.0, min_size=1), np.random.default_rng(0))
    for i, size in enumerate(sizes):
        assert buffer.insert(numbered(size, sum(sizes[:i]))) == size
    batch, serials = buffer.sample()
    total = sum(sizes)
    assert (len(buffer), buffer.inserted) == (min(total, capacity), total)
    assert batch.arrays["reward"].tolist() == serials.tolist()  # a serial number is the transition's own
    assert set(serials.tolist()) == set(range(max(0, total - capacity), total))
    assert batch.arrays["weight"].tolist() == [1.0] * 400


def test_the_memory_is_known_beforehand_and_taken_at_once() -> None:
    for alpha in (0.0, 0.6):
        buffer = ReplayBuffer(Replay(1000, 4, 1.0, min_size=1, priority_alpha=alpha), np.random.default_rng(0))
        buffer.insert(trajectory(fragment(np.random.default_rng(0), 4, 2)))
        assert buffer.nbytes == replay_nbytes(SPACES, 1000, prioritised=alpha > 0)
        before = buffer.nbytes
        for _ in range(200):
            buffer.insert(trajectory(fragment(np.random.default_rng(0), 4, 2)))
        assert buffer.nbytes == before
    box = replay_nbytes(Spaces((3, 4), "uint8", action_dim=2), 10)
    assert box == 10 * (12 + 12 + 8 + 4 + 4)


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
@pytest.mark.parametrize("fragments", [0, 2, 9])
def test_after_a_restore_the_samples_go_on_bit_for_bit(alpha: float, fragments: int) -> None:
    replay = Replay(20, 16, 1.0, min_size=1, priority_alpha=alpha, n_step=2)
    straight, resumed = ReplayBuffer(replay, np.random.default_rng(1)), ReplayBuffer(replay, np.random.default_rng(9))
    rng = np.random.default_rng(2)
    coming = [trajectory(fragment(rng, 4, 1)) for _ in range(fragments + 3)]
    errors = rng.normal(size=(fragments + 6, 16))

    def go_on(buffer: ReplayBuffer, first: int, last: int) -> list[Array]:
        seen: list[Array] = []
        for i in range(first, last):
            buffer.insert(coming[i])
            batch, serials = buffer.sample()
            buffer.update_priorities(serials, errors[i])
            seen += [serials, *(batch.arrays[name] for name in (*COLUMNS, "weight"))]
        return seen

    go_on(straight, 0, fragments)
    saved = straight.state()
    values = json.loads(json.dumps(saved.values))
    resumed.restore(type(saved)(saved.tensors, values))
    expected = go_on(straight, fragments, fragments + 3)
    for array, other in zip(expected, go_on(resumed, fragments, fragments + 3), strict=True):
        np.testing.assert_array_equal(array, other)
        assert array.dtype == other.dtype


def test_a_saved_buffer_does_not_change_afterwards() -> None:
    buffer = prioritised(capacity=4)
    buffer.insert(numbered(4))
    saved = buffer.state()
    before = {name: tensor.copy() for name, tensor in saved.tensors.items()}
    buffer.insert(numbered(3, 4))
    buffer.update_priorities(np.array([4]), np.array([9.0]))
    assert all(np.array_equal(saved.tensors[name], before[name]) for name in before)


@pytest.mark.parametrize("other", [Replay(50, 4, 1.0, min_size=1), Replay(20, 4, 1.0, min_size=1, priority_alpha=0.6)])
def test_another_configurations_buffer_is_refused(other: Replay) -> None:
    buffer = ReplayBuffer(Replay(20, 4, 1.0, min_size=1), np.random.default_rng(0))
    buffer.insert(numbered(30))
    with pytest.raises(UsageError, match="replay: the saved buffer holds"):
        ReplayBuffer(other, np.random.default_rng(0)).restore(buffer.state())


@pytest.mark.parametrize(
    ("replay", "named"),
    [
        (Replay(0, 1, 1.0, min_size=0), "capacity"),
        (Replay(9, 0, 1.0, min_size=0), "batch"),
        (Replay(9, 1, 1.0, min_size=10), "min_size"),
        (Replay(9, 1, 1.0, min_size=1, n_step=0), "n_step"),
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
