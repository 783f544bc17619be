"""Replay of sequences: whole columns come out as they went in, and a saved buffer goes on bit for bit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.algorithms.acting import env_schema
from headrace.algorithms.base import Sequences, State
from headrace.common.errors import UsageError
from headrace.common.types import Array, Field, Layout, Spaces, Trajectory
from headrace.learner.experience import make_buffer
from headrace.learner.sequences import SequenceBuffer, sequences_nbytes
from tests.learner.replayed import fragment, trajectory

SCHEMA = env_schema(Spaces.box((3,), n_actions=3), {"state": Field("float32", (4,), Layout.START)})


def fragments(count: int, T: int, B: int, seed: int = 0) -> list[Trajectory]:
    rng = np.random.default_rng(seed)
    made = []
    for seq in range(count):
        arrays = fragment(rng, T, B, 0.2)
        arrays["obs"] = rng.random((T + 1, B, 3), np.float32)
        made.append(trajectory(arrays | {"state": rng.random((B, 4), np.float32)}, seq=seq))
    return made


def column(of: Trajectory, b: int) -> dict[str, Array]:
    return {n: of.arrays[n][b] if n == "state" else of.arrays[n][:, b] for n in SCHEMA.fields if n != "final_obs"}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(1, 20), st.integers(0, 99))
def test_what_is_drawn_is_among_the_last_columns(count: int, T: int, B: int, capacity: int, seed: int) -> None:
    declared = Sequences(capacity, batch=32, samples_per_insert=1.0, min_size=0)
    buffer, coming = SequenceBuffer(declared, SCHEMA, np.random.default_rng(seed)), fragments(count, T, B, seed)
    assert [buffer.insert(one) for one in coming] == [B] * count
    held = [column(one, b) for one in coming for b in range(B)]
    batch, serials = buffer.sample()
    assert serials.min() >= max(0, count * B - capacity)
    for i, serial in enumerate(serials):
        for name, array in held[serial].items():
            found = batch.arrays[name][i] if name == "state" else batch.arrays[name][:, i]
            np.testing.assert_array_equal(found, array)
    assert sequences_nbytes(SCHEMA, declared, T) == buffer.nbytes


def test_columns_are_paid_back_and_a_saved_buffer_goes_on_bit_for_bit() -> None:
    declared = Sequences(10, batch=4, samples_per_insert=4.0, fragments=2, min_size=2)
    one, other, coming = (*(make_buffer(declared, SCHEMA, seed) for seed in (0, 1)), fragments(8, 3, 2))
    drawn = []
    for kept, first in ((one, 0), (one, 2), (one, 4), (other, 4)):
        for fragment_ in coming[first : first + 2]:
            kept.add(fragment_)
        round_ = kept.next_round()
        assert round_ is not None
        drawn.append([batch.arrays["obs"] for batch in round_.batches])
        if first == 2:
            saved = one.state()
            values = json.loads(json.dumps(saved.values))
            other.restore(State(saved.tensors, values, saved.blocks))
    assert [len(batches) for batches in drawn] == [2, 4, 4, 4]  # of 4 columns 2 are free: 2 * 4 samples, 4 at a time
    for mine, theirs in zip(drawn[2], drawn[3], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(UsageError, match="min_size is 11, must be from 0 to capacity"):
        SequenceBuffer(Sequences(10, 4, 1.0, min_size=11), SCHEMA, np.random.default_rng(0))
    buffer = SequenceBuffer(Sequences(10, 4, 1.0, min_size=0), SCHEMA, np.random.default_rng(0))
    buffer.insert(fragments(1, T=3, B=2)[0])
    with pytest.raises(UsageError, match=r"sequences of 3 steps; actors\.fragment_steps cannot become 4"):
        buffer.insert(fragments(1, T=4, B=2)[0])
    saved = SequenceBuffer(Sequences(10, 4, 1.0, min_size=0), SCHEMA, np.random.default_rng(0)).state()
    with pytest.raises(UsageError, match="holds 10 sequences, this configuration 12"):
        SequenceBuffer(Sequences(12, 4, 1.0, min_size=0), SCHEMA, np.random.default_rng(0)).restore(saved)
