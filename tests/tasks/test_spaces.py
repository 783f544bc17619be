"""What environments show and take, whatever their spaces: by name, from 0 on, with masks; and what is refused."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Tuple

from headrace.common.errors import EnvironmentFailed, UsageError
from headrace.common.types import Field
from headrace.tasks import make_batch
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from tests.tasks.named_envs import ACTIONS, Everything, Plain

ZOO = "tests.tasks.named_envs"
NAMES = ["arm.angles", "arm.grip", "camera", "dials.0", "dials.1", "gear"]


def test_every_observation_is_a_field_by_its_dotted_name() -> None:
    spaces = make_batch(f"{ZOO}:Everything", 1).spaces
    assert spaces.obs == {
        "arm.angles": Field("float32", (2,)),
        "arm.grip": Field("int8", (2,), below=(2, 2), start=(0, 0)),
        "camera": Field("uint8", (8, 8)),
        "dials.0": Field("int64", (2,), below=(2, 4), start=(0, -1)),
        "dials.1": Field("float32", ()),
        "gear": Field("int64", (), below=3, start=1),
        "action_mask": Field("bool", (ACTIONS,)),
    }
    assert list(spaces.seen) == NAMES
    assert (spaces.n_actions, spaces.outputs, spaces.is_vector) == (ACTIONS, ACTIONS, False)


@pytest.mark.parametrize("told", ["dict", "method", "info"])
def test_what_is_shown_is_what_travels(told: str) -> None:
    envs = [Everything(told), Everything(told)]
    batch = GymnasiumBatch.of(envs, "Everything")
    assert set(batch.reset([1, 2])) == {*NAMES, "action_mask"} == set(batch.spaces.obs)
    ends, rng = 0, np.random.default_rng(0)
    for _ in range(60):
        allowed = np.stack([env.allowed for env in envs])
        stepped = batch.step(np.where(allowed, rng.random(allowed.shape), -1.0).argmax(1))
        obs, over = stepped.obs, stepped.terminated | stepped.truncated
        np.testing.assert_array_equal(obs["action_mask"], [env.allowed for env in envs])
        for name, field in batch.spaces.obs.items():
            assert (obs[name].dtype, obs[name].shape) == (field.dtype, (2, *field.shape))
            below = field.choices and np.asarray(field.below)
            assert not field.choices or ((obs[name] >= 0) & (obs[name] < below)).all()
        if over.any():
            ends += 1
            assert stepped.final_obs["camera"].shape == (over.sum(), 8, 8)
            nothing = ~stepped.final_obs["action_mask"].any(1)
            np.testing.assert_array_equal(nothing, stepped.terminated[over])
    assert ends > 10


def test_whole_numbers_come_from_0_and_go_back_to_where_their_space_begins() -> None:
    one = Plain(Discrete(4, start=7), Discrete(3, start=-1), 9)
    batch = GymnasiumBatch.of([one], "Plain")
    assert batch.reset([0]).tolist() == [2]
    batch.step(np.array([2]))
    assert one.taken == [1]
    assert batch.spaces.obs == {"": Field("int64", (), below=4, start=7)}


@pytest.mark.parametrize(
    ("space", "action", "taken"),
    [
        (MultiDiscrete([3, 2], start=[5, 0]), [[2, 1]], [7, 1]),
        (MultiDiscrete([[3, 2], [4, 4]]), [[2, 1, 0, 3]], [[2, 1], [0, 3]]),
        (MultiBinary(3), [[1, 0, 1]], [1, 0, 1]),
        (Box(np.float32([[-1, 0]]), np.float32([[1, 10]])), np.float32([[-1.0, 0.5]]), [[-1.0, 7.5]]),
        (Box(-2, 2, (), np.float32), np.float32([[0.5]]), 1.0),
    ],
)
def test_actions_reach_an_environment_as_its_space_has_them(space, action, taken) -> None:
    env = Plain(Box(-1, 1, (3,), np.float32), space, np.zeros(3, np.float32))
    batch = GymnasiumBatch.of([env], "Plain")
    batch.reset([0])
    assert np.shape(action)[1:] == batch.spaces.action.shape
    batch.step(np.asarray(action))
    np.testing.assert_array_equal(env.taken[0], taken)


@pytest.mark.parametrize(
    ("kind", "field", "outputs"),
    [
        ("multi_discrete", Field("int64", (2,), below=(3, 2), start=(0, 0)), 5),
        ("multi_binary", Field("int64", (3,), below=(2, 2, 2), start=(0, 0, 0)), 6),
        ("box", Field("float32", (4,)), 4),
        ("discrete", Field("int64", below=3), 3),
    ],
)
def test_the_field_of_an_action(kind: str, field: Field, outputs: int) -> None:
    spaces = make_batch(f"{ZOO}:taking", 1, kwargs={"space": kind}).spaces
    assert (spaces.action, spaces.outputs, spaces.discrete) == (field, outputs, kind == "discrete")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("whole", "whole numbers; a MultiDiscrete says how many"),
        ("unbounded", "a bounded Box are"),
        ("dict", r"action space Dict\(.*not supported; Discrete, MultiDiscrete, MultiBinary and"),
        ("tuple", r"action space Tuple\(.*not supported"),
    ],
)
def test_actions_that_cannot_be_served_are_one_line(kind: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make_batch(f"{ZOO}:taking", 1, kwargs={"space": kind})
    assert "\n" not in str(caught.value)
    assert f"task.env '{ZOO}:taking'" in str(caught.value)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("long mask", "its action_mask MultiBinary.3. has 3 entries; its actions have 2 choices"),
        ("box mask", "shows an action_mask, and its actions are a Box"),
        ("only a mask", "shows nothing"),
        ("one name", "two observations are called 'a.b'"),
        ("text", r"observation space Text\(.* of 'says' is not supported; a Box of "),
    ],
)
def test_spaces_that_cannot_be_served_are_one_line(how: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make_batch(f"{ZOO}:lying", 1, kwargs={"how": how})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("discrete", r"showed an observation 3, which is not in its observation space Discrete\(3\)"),
        ("multi_discrete", r"showed an observation \[2, 0\], which is not in"),
        ("multi_binary", r"showed an observation \[0, 2\], which is not in"),
        ("named", "showed an observation 'gear' -1, which is not in"),
        ("key", "showed no 'gear', which its observation space has"),
        ("shape", r"showed an observation 'x' of shape \(4,\); its observation space says \(3,\)"),
        ("nothing allowed", "showed an action_mask that allows nothing"),
        ("short mask", "showed an action_mask of 3 entries of bool; its actions have 2 choices"),
    ],
)
def test_an_environment_that_lies_about_its_spaces_is_named_in_one_line(how: str, says: str) -> None:
    batch = make_batch(f"{ZOO}:lying", 1, kwargs={"how": how})
    with pytest.raises(EnvironmentFailed, match=f"environment '{ZOO}:lying' number 0 {says}") as caught:
        batch.reset([0])
    assert "\n" not in str(caught.value)


class Forgets(Everything):
    def info(self):
        return super().info() if self.left > 5 else {}


def test_a_mask_that_does_not_come_any_more_is_one_line() -> None:
    batch = GymnasiumBatch.of([env := Forgets("info", camera=False)], "Forgets")
    env.reset(seed=3)
    while env.left < 8:
        env.reset()
    batch.envs[0].reset = lambda seed=None: (env.shown(), {"action_mask": env.allowed})
    batch.reset([0])
    while env.left > 6:
        batch.step(np.flatnonzero(env.allowed)[:1])
    with pytest.raises(EnvironmentFailed, match="gave no action_mask with its info, as it had done before"):
        batch.step(np.flatnonzero(env.allowed)[:1])


def test_masks_of_several_components_may_come_apart() -> None:
    space, box = MultiDiscrete([3, 2]), Box(-1, 1, (3,), np.float32)
    mask = (np.array([0, 1, 1], np.int8), np.array([1, 0], np.int8))
    batch = GymnasiumBatch.of([Plain(box, space, np.zeros(3, np.float32), mask)], "Plain")
    obs = batch.reset([0])
    assert obs["action_mask"].tolist() == [[False, True, True, True, False]]
    assert obs[""].shape == (1, 3)


@pytest.mark.parametrize(("env_id", "names"), [("FrozenLake-v1", [""]), ("Blackjack-v1", ["0", "1", "2"])])
def test_gymnasiums_own_environments_with_whole_numbers(env_id: str, names: list[str]) -> None:
    batch = make_batch(env_id, 2)
    batch.reset([1, 2])
    assert list(batch.spaces.obs) == names
    for _ in range(50):
        batch.step(np.array([1, 0]))


def test_taxi_tells_its_masks_with_its_info() -> None:
    batch = make_batch("Taxi-v4", 2)
    assert "action_mask" not in batch.spaces.obs
    assert batch.reset([1, 2])["action_mask"].shape == (2, 6)
    assert "action_mask" in batch.spaces.obs


def test_a_tuple_of_images_and_vectors() -> None:
    space = Tuple((Box(0, 255, (4, 4), np.uint8), Box(-1, 1, (2,), np.float32)))
    env: gymnasium.Env = Plain(space, Discrete(2), (np.zeros((4, 4), np.uint8), np.zeros(2, np.float32)))
    assert {n: a.shape for n, a in GymnasiumBatch.of([env], "Plain").reset([0]).items()} == {
        "0": (1, 4, 4),
        "1": (1, 2),
    }
