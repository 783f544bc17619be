"""One rule for every system: when does a policy first reach a greedy mean return of R?

A trainer keeps snapshots of its policy, each with the steps and the training seconds at which it was taken. After the
run they are evaluated in order, greedily, over the same 20 unseen episodes, until one reaches R. Evaluation time is
never part of the training time. Needs numpy and gymnasium only, so that it runs in every system's environment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gymnasium
import numpy as np

Array = np.ndarray
EPISODES = 20
#: Seeds of evaluation episodes; training seeds of every contestant stay far below.
FIRST_EVALUATION_SEED = 2**31 - 10_000
#: Steps between two snapshots.
SNAPSHOT_STEPS = 25_000


def mlp(tensors: Mapping[str, Array], prefix: str = "pi") -> Callable[[Array], Array]:
    """A tanh network from ``{prefix}.0.weight`` [in, out], ``{prefix}.0.bias``, ``{prefix}.1.weight``, ...: it takes
    obs [B, in] to logits [B, out]. ``obs_mean`` and ``obs_scale``, where present, normalise the observations to within
    +-10 first."""
    layers: list[tuple[Array, Array]] = []
    while f"{prefix}.{len(layers)}.weight" in tensors:
        layers.append((tensors[f"{prefix}.{len(layers)}.weight"], tensors[f"{prefix}.{len(layers)}.bias"]))
    if not layers:
        raise KeyError(f"no {prefix}.0.weight among {sorted(tensors)}")

    def forward(obs: Array) -> Array:
        x = obs
        if "obs_mean" in tensors:
            x = np.clip((x - tensors["obs_mean"]) * tensors["obs_scale"], -10, 10)
        for weight, bias in layers[:-1]:
            x = np.tanh(x @ weight + bias)
        logits: Array = x @ layers[-1][0] + layers[-1][1]
        return logits

    return forward


def greedy_returns(logits: Callable[[Array], Array], env_id: str = "LunarLander-v3", episodes: int = EPISODES) -> Array:
    """Undiscounted returns [episodes] of the arg-max policy, one environment and one fixed seed an episode."""
    envs = [gymnasium.make(env_id, disable_env_checker=True) for _ in range(episodes)]
    obs = np.stack([env.reset(seed=FIRST_EVALUATION_SEED + i)[0] for i, env in enumerate(envs)])
    returns, running = np.zeros(episodes), list(range(episodes))
    while running:
        actions = logits(obs[running]).argmax(-1)
        for i, action in zip(list(running), actions, strict=True):
            obs[i], reward, terminated, truncated, _ = envs[i].step(int(action))
            returns[i] += float(reward)
            if terminated or truncated:
                running.remove(i)
                envs[i].close()
    return returns


def first_pass(
    snapshots: Iterable[tuple[int, float, Mapping[str, Array]]], threshold: float, env_id: str = "LunarLander-v3"
) -> dict[str, Any]:
    """Evaluate (steps, time_s, tensors) in order until the greedy mean reaches ``threshold``. ``passed`` tells whether
    one did; ``steps``, ``time_s`` and ``greedy_mean`` are those of the last evaluated, ``curve`` holds them all."""
    began, curve = time.perf_counter(), []
    for steps, time_s, tensors in snapshots:
        mean = float(greedy_returns(mlp(tensors), env_id).mean())
        curve.append({"steps": steps, "time_s": round(time_s, 3), "greedy_mean": round(mean, 2)})
        if mean >= threshold:
            break
    last = curve[-1] if curve else {"steps": 0, "time_s": 0.0, "greedy_mean": float("-inf")}
    return {
        "threshold": threshold,
        "passed": last["greedy_mean"] >= threshold,
        **last,
        "evaluation_s": round(time.perf_counter() - began, 1),
        "curve": curve,
    }
