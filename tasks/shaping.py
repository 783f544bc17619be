"""Reward shaping: rewards made of named terms that the config weighs, each of them in the metrics.

    task.wrappers = [{ name = "headrace.tasks.shaping:Shaped", terms = "headrace.tasks.lunarlander:terms",
                       kind = "potential", gamma = 0.999, weights = { distance = -100.0, legs = 10.0 } }]

    potential   r + gamma Phi(s') - Phi(s), with Phi the weighted sum of a state's terms, 0 where the episode has
                terminated: whatever the weights, the optimal policies are those of r
                (Ng, Harada & Russell 1999, theorem 1)
    replace     the weighted sum of the terms of (action, s') instead of r; r itself is the term "environment"

Returns that are shown and evaluated stay the environment's own (wrappers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import gymnasium

from headrace.common.errors import UsageError
from headrace.tasks.wrappers import Wrapping

#: Terms of what an environment shows after an action (None: of the state alone), by name.
Terms = Callable[[Any, Any], Mapping[str, float]]
ENVIRONMENT = "environment"


class Shaped(gymnasium.Wrapper):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Raises :class:`UsageError` for a weight of a term that ``terms`` does not give, among others."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        terms: Terms,
        weights: Mapping[str, float],
        kind: Literal["potential", "replace"],
        gamma: float | None = None,
    ) -> None:
        super().__init__(env)
        if kind not in ("potential", "replace"):
            raise UsageError(f"task.wrappers: Shaped has kind = {kind!r}; 'potential' or 'replace'")
        if (kind == "potential") != (gamma is not None):
            raise UsageError("task.wrappers: Shaped needs gamma, the algorithm's, for kind = 'potential' and no other")
        known = {*terms(env.observation_space.sample(), None), *((ENVIRONMENT,) if gamma is None else ())}
        if unknown := weights.keys() - known:
            raise UsageError(f"task.wrappers: Shaped weighs {', '.join(sorted(unknown))}; there are {sorted(known)}")
        self._terms, self._weights, self._gamma = terms, {k: float(w) for k, w in weights.items()}, gamma
        self._before: Mapping[str, float] = {}
        self._sums: dict[str, float] = {}
        self._steps = 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        shown, info = self.env.reset(**options)
        self._before = self._weighted(shown, None)
        return shown, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        shown, reward, terminated, truncated, info = self.env.step(action)
        if self._gamma is None:
            parts = {**self._weighted(shown, action), ENVIRONMENT: self._weights.get(ENVIRONMENT, 0.0) * float(reward)}
        else:
            after = dict.fromkeys(self._before, 0.0) if terminated else self._weighted(shown, None)
            parts = {name: self._gamma * after[name] - before for name, before in self._before.items()}
            parts[ENVIRONMENT] = float(reward)
            self._before = after
        for name, part in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + part
        self._steps += 1
        return shown, sum(parts.values()), terminated, truncated, info

    def take_terms(self) -> tuple[dict[str, float], int]:
        """What each term came to since the last call, and in how many steps."""
        taken = self._sums, self._steps
        self._sums, self._steps = {}, 0
        return taken

    def _weighted(self, shown: Any, action: Any) -> dict[str, float]:
        found = self._terms(shown, action)
        return {name: weight * found[name] for name, weight in self._weights.items() if name != ENVIRONMENT}


def shaped(env: gymnasium.Env[Any, Any]) -> Shaped | None:
    """The outermost shaping around ``env``; None where there is none."""
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Shaped):
            return env
        env = env.env
    return None


def check_gamma(wrappers: Sequence[Wrapping], gamma: float | None) -> None:
    """The theorem holds for the discount that the algorithm maximises with. Raises :class:`UsageError`."""
    for wrapping in wrappers:
        if not isinstance(wrapping, Mapping) or not str(wrapping.get("name")).endswith(":Shaped"):
            continue
        if wrapping.get("kind") == "potential" and gamma not in (None, wrapping.get("gamma")):
            raise UsageError(
                f"task.wrappers: Shaped has gamma = {wrapping.get('gamma')} and algorithm.gamma is {gamma}; potentials "
                "leave the optimal policies as they are only where the two are equal"
            )
