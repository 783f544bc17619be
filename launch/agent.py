"""A trained policy in the caller's own process, to act with: no actor, no learner, no torch.

agent = headrace.load("runs/cartpole-ppo-1")
env = agent.make_env()
obs, info = env.reset()
obs, reward, terminated, truncated, info = env.step(agent.act(obs))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from headrace.algorithms.base import Policy
from headrace.common.errors import UsageError
from headrace.common.named import parts
from headrace.common.seeding import stream
from headrace.common.types import Array, Weights
from headrace.launch import export
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.evaluate import best_checkpoint, load_weights
from headrace.launch.run_files import stored_config
from headrace.tasks.actions import to_env
from headrace.tasks.given import Given
from headrace.tasks.gymnasium_env import make_env


def load(run_dir: str | os.PathLike[str], *, best: bool = False) -> Agent:
    """The policy of a run's newest checkpoint, or of the one that evaluated best. The run may still be going on.

    Raises :class:`UsageError` where there is no run or no such checkpoint in it, and where its environment cannot be
    made here.
    """
    path = Path(run_dir).absolute()
    config = stored_config(path)
    return Agent(config, load_weights(config, path, best_checkpoint(path) if best else None))


class Agent:
    """Made by :func:`load`, or by :meth:`SerialRun.agent`. Not for several threads at once.

    ``version``, ``env_steps``: after how many updates and environment steps the policy was so (None: not known).
    ``observation_space``, ``action_space``: Gymnasium's, of the environment in its wrappers.
    """

    def __init__(self, config: Config, weights: Weights) -> None:
        self.version, self.env_steps = weights.version, weights.env_steps
        self._blueprint = Blueprint(config, watched=False)
        env = self.make_env()
        self.observation_space, self.action_space = env.observation_space, env.action_space
        env.close()
        self._weights = weights
        self._policy: Policy = self._blueprint.policy()
        self._policy.load(weights)
        self._given = Given(self.observation_space, self._blueprint.spaces)
        self._to_env = to_env(self.action_space)
        self._state: Array | None = None
        self._rng = stream(config.run.seed, "agent")

    def __repr__(self) -> str:
        config = self._blueprint.config
        return f"<Agent: {config.algorithm_label} on {config.task.env}, version {self.version}>"

    def act(self, obs: Any, *, action_mask: Any = None, explore: bool = False) -> Any:
        """The action for one observation, or the actions for many.

        One observation is as the environment shows it: an array, a number, or a Dict or Tuple of them; many are as
        ``gymnasium.vector`` shows them, each array with an axis [n] in front. What comes back is what the environment's
        ``step`` takes, in its units, its shape and its dtype: one action, or n of them along the first axis.

        ``action_mask``: bool [choices] or [n, choices], True where allowed, of an environment that does not show it
        with its observations. ``explore``: draw actions as in training instead of taking the best.

        A policy that remembers (an LSTM, stacked frames) remembers what it was shown from call to call: n episodes side
        by side. :meth:`reset` tells it where episodes begin.

        Raises :class:`UsageError` for observations or masks that are not the environment's, and for another n while it
        remembers.
        """
        batch, alone = self._given(obs, action_mask)
        n = len(next(iter(parts(batch).values())))
        if self._state is not None and len(self._state) != n:
            raise UsageError(f"act: {n} observations, and {len(self._state)} episodes are remembered; reset() first")
        acted = self._policy.act(batch, self._state, self._rng, explore)
        self._state = acted.state
        actions = np.asarray(self._to_env(acted.action), self.action_space.dtype)
        return actions[0] if alone else actions

    def reset(self, ended: Any = None) -> None:
        """Forget what was remembered: of all episodes, or of those side by side that have ended (bool [n], or their
        numbers). For a policy without a memory it changes nothing.

        Raises :class:`UsageError` where there are no such episodes."""
        if ended is None:
            self._state = None
        elif self._state is not None:
            try:
                self._state[np.asarray(ended)] = 0
            except IndexError as error:
                raise UsageError(f"reset: {ended!r:.100} of {len(self._state)} episodes: {error}") from error

    def make_env(self, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
        """A new environment of the run's task, in the wrappers that the policy was trained in.

        Raises :class:`UsageError` where it cannot be made."""
        task = self._blueprint.config.task
        return make_env(task.env, dict(task.kwargs), render_mode, task.wrappers)

    def export(self, file: str | os.PathLike[str], *, sample: bool = False) -> Path:
        """Write the policy as one ONNX file that needs nothing of ours (docs/export.md); where it is. ``sample``: it
        draws its actions as in training.

        Raises :class:`UsageError` for a name that is no ``.onnx`` in a directory that is there and for a policy that
        has no graph, :class:`HeadraceError` where the file cannot be written."""
        path = Path(file).absolute()
        export.check_name(path)
        export.write(self._blueprint, self._policy, self._weights, path, sample)
        return path
