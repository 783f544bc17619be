"""An environment whose numbers were changed behaves by the new ones."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from headrace.common.errors import UsageError
from headrace.tasks.changed import Changed
from headrace.tasks.gymnasium_env import make_env

NAME = "headrace.tasks.changed:Changed"


def test_numbers_of_the_environment_itself_are_set_beneath_its_wrappers() -> None:
    """The same push, twice the force: twice the speed of the cart, from rest and upright."""
    speeds = []
    for force in (10.0, 20.0):
        env = make_env("CartPole-v1", {}, wrappers=[{"name": NAME, "force_mag": force}])
        env.reset(seed=0)
        env.unwrapped.state = np.zeros(4)
        shown, *_ = env.step(1)
        speeds.append(float(shown[1]))
    assert speeds[1] == pytest.approx(2 * speeds[0])
    assert speeds[0] > 0


@pytest.mark.parametrize("attributes", [{"mass": 1.0}, {"gravity": True}, {"gravity": "high"}, {"render_mode": 1}])
def test_what_it_does_not_hold_is_refused(attributes: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="CartPoleEnv holds these numbers: force_mag, gravity, length"):
        Changed(gymnasium.make("CartPole-v1"), **attributes)  # type: ignore[arg-type]
