"""The algorithms by name. To add one: a file here and a row below (docs/architecture.md tells the rest)."""

from __future__ import annotations

#: name -> (module, class of the learning half)
ALGORITHMS: dict[str, tuple[str, str]] = {
    "ppo": ("ppo", "PPO"),
    "dqn": ("dqn", "DQN"),
    "grpo": ("grpo", "GRPO"),
}
