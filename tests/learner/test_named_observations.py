"""Several observations by name are kept, stacked, joined and saved as one is."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.algorithms.acting import env_schema
from headrace.algorithms.base import Replay
from headrace.common.types import Array, Field, Spaces
from headrace.learner.experience import join_groups, join_on_policy
from headrace.learner.replay import ReplayBuffer, replay_nbytes
from tests.learner.replayed import fragment, trajectory

SPACES = Spaces(
    {"a": Field("float32", (2,)), "b.c": Field("uint8", (3,)), "action_mask": Field("bool", (3,))},
    Field("int64", below=3),
)

PLAIN = Spaces.box((2,), n_actions=3)


def derived(x: Array) -> dict[str, Array]:
    """What else is shown, all of it a function of ``x`` [..., 2]."""
    whole, (left, right) = (np.abs(x[..., :1] * 50) % 256).astype(np.uint8), (x[..., 0], x[..., 1])
    mask = np.stack([left > 0, right > 0, left > right], -1)
    return {"a": x, "b.c": np.repeat(whole, 3, axis=-1), "action_mask": mask}


def several(arrays: dict[str, Array]) -> dict[str, Array]:
    shown = {f"{kind}.{name}": a for kind in ("obs", "final_obs") for name, a in derived(arrays[kind]).items()}
    return {name: a for name, a in arrays.items() if name not in ("obs", "final_obs")} | shown


def filled(stack: int, made: bool) -> ReplayBuffer:
    replay, rng = Replay(100, 32, 1.0, min_size=1, n_step=2, stack=stack), np.random.default_rng(1)
    buffer = ReplayBuffer(replay, np.random.default_rng(0))
    for i in range(12):
        arrays = fragment(rng, 8, 2)
        buffer.insert(trajectory(several(arrays) if made else arrays, seq=i))
    return buffer


@pytest.mark.parametrize("stack", [1, 3])
def test_each_is_sampled_as_one_alone_would_be(stack: int) -> None:
    one, many = filled(stack, made=False), filled(stack, made=True)
    assert many.nbytes == replay_nbytes(SPACES, many.replay, 8, 2)
    for _ in range(3):
        expected, found = one.sample()[0].arrays, many.sample()[0].arrays
        for kind in ("obs", "next_obs"):
            held = (expected[kind] != 0).any(-1)
            for name, array in derived(expected[kind]).items():
                mine = found[f"{kind}.{name}"]
                if name == "action_mask":
                    np.testing.assert_array_equal(mine, array if stack == 1 else array[:, -1])
                else:
                    np.testing.assert_array_equal(mine[held], array[held])
                    assert (mine[~held] == 0).all()
        for name in ("action", "reward", "discount", "weight"):
            np.testing.assert_array_equal(found[name], expected[name])


def test_a_buffer_goes_on_where_it_was_saved() -> None:
    buffer, other = filled(2, made=True), ReplayBuffer(filled(2, made=True).replay, np.random.default_rng(9))
    other.restore(buffer.state())
    arrays = several(fragment(np.random.default_rng(5), 8, 2))
    for one in (buffer, other):
        one.insert(trajectory(arrays, seq=12))
    expected, found = buffer.sample()[0].arrays, other.sample()[0].arrays
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_fragments_are_joined_by_name() -> None:
    rng = np.random.default_rng(0)
    made = [fragment(rng, 4, 2) for _ in range(3)]
    expected, found = (
        join_on_policy([trajectory(f(a)) for a in made], schema)
        for f, schema in ((dict, env_schema(PLAIN, {})), (several, env_schema(SPACES, {})))
    )
    for kind in ("obs", "final_obs"):
        assert found[kind].keys() == {"a", "b.c", "action_mask"}
        for name, array in derived(expected.arrays[kind]).items():
            np.testing.assert_array_equal(found[kind][name], array)
    np.testing.assert_array_equal(found.arrays["final_t"], expected.arrays["final_t"])


def test_groups_are_joined_by_name() -> None:
    arrays = fragment(np.random.default_rng(0), 4, 2)
    arrays = {**arrays, "obs": arrays["obs"][:4], "valid": np.array([[1, 1], [1, 1], [0, 1], [0, 1]], bool)}
    found = join_groups([trajectory({n: a for n, a in several(arrays).items() if not n.startswith("final_obs")})])
    for name, array in derived(arrays["obs"][arrays["valid"]]).items():
        np.testing.assert_array_equal(found["obs"][name], array)
