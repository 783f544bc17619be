"""Hand-made trajectories for the learner's tests."""

import numpy as np

from headrace.algorithms import ppo
from headrace.common.types import Episode, Spaces, Trajectory

SPACES = Spaces.box((3,), n_actions=2)
SCHEMA = ppo.schema(ppo.Config(), SPACES)


def fragment(lease=0, *, actor=0, incarnation=1, seq=0, version=0, T=4, B=2, run="run", seed=None, **overrides):
    """A valid PPO fragment; ``overrides`` replace arrays."""
    rng = np.random.default_rng(lease % 2**63 if seed is None else seed)
    ended = rng.random((T, B)) < 0.3
    terminated = ended & (rng.random((T, B)) < 0.5)
    arrays = {
        "obs": rng.standard_normal((T + 1, B, 3)).astype(np.float32),
        "action": rng.integers(0, 2, (T, B)),
        "reward": rng.standard_normal((T, B)).astype(np.float32),
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "behaviour_logp": np.full((T, B), -0.7, np.float32),
        "final_obs": rng.standard_normal((int(ended.sum()), 3)).astype(np.float32),
    } | overrides
    episodes = tuple(Episode(1.0, 3) for _ in range(int(ended.sum())))
    return Trajectory(run, 1, actor, incarnation, seq, version, lease, "task", SCHEMA.hash, T, B, arrays, episodes)
