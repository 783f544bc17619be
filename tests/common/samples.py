"""Trajectories for tests: small, valid, deterministic."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.common.types import Episode, Field, Layout, Schema, Trajectory

SCHEMA = Schema(
    {
        "obs": Field("float32", (8,), Layout.CHAIN),
        "action": Field("int64"),
        "reward": Field("float32"),
        "terminated": Field("bool"),
        "truncated": Field("bool"),
        "behaviour_logp": Field("float32"),
        "final_obs": Field("float32", (8,), Layout.FINAL),
    }
)


def trajectory(seq: int = 0, T: int = 4, B: int = 2, ends: int = 1, obs_dim: int = 8, **stamps: Any) -> Trajectory:
    """A fragment of T steps in B environments in which ``ends`` episodes end, all at the first step."""
    rng = np.random.default_rng(seq)
    terminated = np.zeros((T, B), bool)
    terminated.reshape(-1)[:ends] = True
    arrays = {
        "obs": rng.standard_normal((T + 1, B, obs_dim), dtype=np.float32),
        "action": rng.integers(0, 4, (T, B)),
        "reward": rng.standard_normal((T, B), dtype=np.float32),
        "terminated": terminated,
        "truncated": np.zeros((T, B), bool),
        "behaviour_logp": rng.standard_normal((T, B), dtype=np.float32),
        "final_obs": rng.standard_normal((ends, obs_dim), dtype=np.float32),
    }
    stamp: dict[str, Any] = dict(
        run_id="run",
        learner_epoch=1,
        actor_id=3,
        incarnation=2**62 + 5,
        seq=seq,
        policy_version=7,
        lease=11 + seq,
        task_id="LunarLander-v3",
        schema_hash=SCHEMA.hash,
        T=T,
        B=B,
        arrays=arrays,
        episodes=tuple(Episode(ret=-12.5 + k, length=97 + k) for k in range(ends)),
    )
    return Trajectory(**{**stamp, **stamps})


def assert_same(a: Trajectory, b: Trajectory) -> None:
    """Equal stamps, episodes, and arrays bit for bit (order, dtype and shape included)."""
    for name in Trajectory.__dataclass_fields__:
        if name != "arrays":
            assert getattr(a, name) == getattr(b, name), name
    assert list(a.arrays) == list(b.arrays)
    for name, array in a.arrays.items():
        other = b.arrays[name]
        assert array.dtype == other.dtype, name
        assert array.shape == other.shape, name
        assert array.tobytes() == other.tobytes(), name
