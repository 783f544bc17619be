"""Fragments to batches: joins, orders, counts."""

import numpy as np

from headrace.algorithms.base import Groups, OnPolicy, Replay
from headrace.common.types import Trajectory
from headrace.learner.experience import join_on_policy, make_buffer, per_version
from tests.learner.fragments import SCHEMA, fragment


def test_on_policy_rounds_take_fragments_as_they_came_and_order_them_by_lease():
    kept = make_buffer(OnPolicy(3), SCHEMA, seed=0)
    for lease in (2, 0):
        kept.add(fragment(lease))
        assert kept.next_round() is None
    for lease in (1, 3):
        kept.add(fragment(lease))
    round_ = kept.next_round()
    assert [f.lease for f in round_.fragments] == [0, 1, 2]
    (batch,) = round_.batches
    np.testing.assert_array_equal(batch.arrays["obs"][:, 2:4], fragment(1).arrays["obs"])
    assert batch.steps == 24
    assert kept.next_round() is None


def test_final_rows_stay_with_their_step_and_column():
    fragments = [fragment(i, T=6, B=3) for i in range(4)]
    arrays = join_on_policy(fragments, SCHEMA).arrays
    ended = arrays["terminated"] | arrays["truncated"]
    assert len(arrays["final_obs"]) == ended.sum() > 3
    assert ended[arrays["final_t"], arrays["final_b"]].all()
    row = 0
    for number, f in enumerate(fragments):
        for t, b in zip(*np.nonzero(f.arrays["terminated"] | f.arrays["truncated"]), strict=True):
            assert (arrays["final_t"][row], arrays["final_b"][row]) == (t, b + 3 * number)
            row += 1


def group(number, lengths):
    T, B = max(lengths), len(lengths)
    valid = np.arange(T)[:, None] < np.array(lengths)
    arrays = {"reward": np.where(valid, number + 1.0, 99.0).astype(np.float32), "valid": valid}
    return Trajectory("run", 1, 0, 1, number, 0, number, "task", "", T, B, arrays)


def test_groups_are_flattened_to_valid_steps_with_their_episodes():
    kept = make_buffer(Groups(groups=2, size=2, max_steps=9), SCHEMA, seed=0)
    kept.add(group(1, [1, 3]))
    kept.add(group(0, [2, 2]))
    (batch,) = kept.next_round().batches
    arrays = batch.arrays
    assert batch.steps == 8 == len(arrays["reward"])
    assert 99.0 not in arrays["reward"]
    assert arrays["episode_return"].tolist() == [2.0, 2.0, 2.0, 6.0]
    assert arrays["episode_group"].tolist() == [0, 0, 1, 1]
    assert np.bincount(arrays["episode"]).tolist() == [2, 2, 1, 3]


def test_replay_rounds_pay_back_what_was_inserted_and_state_goes_on_bit_for_bit():
    declared = Replay(capacity=64, batch=8, samples_per_insert=2.0, fragments=2, min_size=8, priority_alpha=0.6)
    assert per_version(declared) == 2
    one, other = make_buffer(declared, SCHEMA, seed=0), make_buffer(declared, SCHEMA, seed=1)

    def turn(kept, first):
        drawn = []
        for lease in (first, first + 1):
            kept.add(fragment(lease))
        round_ = kept.next_round()
        for batch in round_.batches:
            drawn.append(batch.arrays["obs"])
            round_.report(batch.arrays["reward"])
        return drawn

    assert len(turn(one, 0)) == 2  # 16 inserted, 8 of them free: 8 * 2 samples in batches of 8
    assert len(turn(one, 2)) == 4
    other.restore(one.state())
    for a, b in zip(turn(one, 4), turn(other, 4), strict=True):
        np.testing.assert_array_equal(a, b)
