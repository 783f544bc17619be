"""Observations by name among other arrays, and back."""

import numpy as np
import pytest

from headrace.common import codec, named
from headrace.common.errors import UsageError
from headrace.common.types import Episode, Field, Spaces, Trajectory

ONE = np.arange(6).reshape(3, 2)
SEVERAL = {"image": ONE, "arm.angle": 2 * ONE}
MASKED = {"": ONE, "action_mask": ONE > 2}


@pytest.mark.parametrize(
    ("obs", "names"),
    [(ONE, {"obs"}), (SEVERAL, {"obs.image", "obs.arm.angle"}), (MASKED, {"obs", "obs.action_mask"})],
)
def test_what_is_spread_is_gathered(obs, names) -> None:
    others = {"action": ONE, "observer": ONE, "final_obs": ONE, "final_obs.image": ONE}
    spread = named.spread("obs", obs)
    assert spread.keys() == names
    found = named.gathered({**others, **spread}, "obs")
    assert found is obs or found == obs
    with pytest.raises(KeyError):
        named.gathered(others, "obs")


@pytest.mark.parametrize("obs", [ONE, SEVERAL, MASKED])
def test_rows_are_taken_and_put_by_name(obs) -> None:
    copy = named.each(np.copy, obs)
    named.put(copy, 0, named.rows(obs, 2))
    for name, part in named.parts(copy).items():
        np.testing.assert_array_equal(part[[0, 1, 2]], named.parts(obs)[name][[2, 1, 2]])


def test_a_network_sees_all_but_the_mask() -> None:
    assert named.seen(ONE) is named.seen(MASKED) is ONE
    assert named.seen({**SEVERAL, "action_mask": ONE}) == SEVERAL
    assert named.mask(ONE) is named.mask(SEVERAL) is None
    assert named.mask(MASKED) is MASKED["action_mask"]


def test_names_travel() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "obs.camera.front": rng.integers(0, 256, (3, 2, 4, 4), np.uint8),
        "obs.gear": rng.integers(0, 3, (3, 2)),
        "obs.action_mask": rng.random((3, 2, 4)) < 0.5,
        "final_obs.gear": np.zeros(0, np.int64),
        "action": rng.integers(0, 2, (2, 2, 3)),
    }
    sent = Trajectory("run", 1, 0, 1, 0, 0, 0, "task", "hash", 2, 2, arrays, (Episode(1.0, 2),))
    for compress in (False, True):
        came = codec.decode(codec.encode(sent, 1 << 20, compress), 1 << 20)
        assert list(came.arrays) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(came.arrays[name], array, strict=True)


def test_what_takes_one_array_says_so_where_there_are_several() -> None:
    assert (Spaces.box((4, 2), "int8", n_actions=2).obs_shape, Spaces.box((3,), action_dim=1).obs_dtype) == (
        (4, 2),
        "float32",
    )
    spaces = Spaces({"": Field("float32", (3,)), "action_mask": Field("bool", (2,))}, Field("int64", below=2))
    with pytest.raises(UsageError, match="shows an observation, action_mask; this algorithm takes one array"):
        spaces.obs_shape  # noqa: B018
