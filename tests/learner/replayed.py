"""Fragments for replay, and what replay makes of them: slowly, one step after the other, as one would explain it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.common.types import Array, Trajectory


def fragment(
    rng: np.random.Generator, T: int, B: int, p_end: float = 0.2, p_invalid: float = 0.0, shape: tuple[int, ...] = (2,)
) -> dict[str, Array]:
    """Random arrays; every observation is unlike every other."""
    terminated, truncated = rng.random((T, B)) < p_end / 2, rng.random((T, B)) < p_end / 2
    arrays = {
        "obs": rng.normal(size=(T + 1, B, *shape)).astype(np.float32),
        "action": rng.integers(0, 3, (T, B)),
        "reward": rng.normal(size=(T, B)).astype(np.float32),
        "terminated": terminated,
        "truncated": truncated,
        "final_obs": rng.normal(size=(int((terminated | truncated).sum()), *shape)).astype(np.float32),
    }
    if p_invalid:
        arrays["valid"] = rng.random((T, B)) >= p_invalid
    return arrays


def trajectory(arrays: dict[str, Array], actor: int = 0, seq: int = 0) -> Trajectory:
    T, B = arrays["reward"].shape
    return Trajectory("run", 0, actor, 0, seq, 0, 0, "task", "", T, B, arrays)


def numbered(count: int, start: int = 0) -> Trajectory:
    """``count`` one-step transitions whose reward is their number."""
    arrays = fragment(np.random.default_rng(0), count, 1, p_end=0.0)
    return trajectory(arrays | {"reward": np.arange(start, start + count, dtype=np.float32)[:, None]})


def final_at(arrays: dict[str, Array]) -> dict[tuple[int, int], int]:
    """(t, b) of every episode end -> its place in ``final_obs``."""
    ends = np.argwhere(arrays["terminated"] | arrays["truncated"])
    return {(int(t), int(b)): k for k, (t, b) in enumerate(ends)}


def slow_transitions(arrays: dict[str, Array], n_step: int, gamma: float) -> list[dict[str, Any]]:
    """Every transition, with the place of its two observations: ("obs", t, b), or ("final", t, b) after step t."""
    T, B = arrays["reward"].shape
    valid, finals = arrays.get("valid", np.ones((T, B), bool)), final_at(arrays)
    rows = []
    for t in range(T):
        for b in range(B):
            if not valid[t, b]:
                continue
            ret, k = 0.0, 0
            while True:
                ret += gamma**k * float(arrays["reward"][t + k, b])
                k += 1
                at = (t + k - 1, b)
                if at in finals:
                    next_at = ("final", *at)
                    break
                next_at = ("obs", t + k, b)
                if k == n_step or t + k == T or not valid[t + k, b]:
                    break
            discount = 0.0 if arrays["terminated"][at] else gamma**k
            row = {"at": ("obs", t, b), "next_at": next_at, "action": arrays["action"][t, b]}
            rows.append(row | {"reward": ret, "discount": discount})
    return rows


def shown(arrays: dict[str, Array], at: tuple[str, int, int]) -> Array:
    """The observation at a place."""
    kind, t, b = at
    row: Array = arrays["obs"][t, b] if kind == "obs" else arrays["final_obs"][final_at(arrays)[t, b]]
    return row


class SlowReplay:
    """Every row and every transition there ever was, in lists; the latest ``capacity`` count, as far as their
    observation is among the latest ``rows``."""

    def __init__(self, capacity: int, rows: int, n_step: int, gamma: float, stack: int) -> None:
        self.capacity, self.kept, self.n_step, self.gamma, self.stack = capacity, rows, n_step, gamma, stack
        self.rows: list[Array] = []
        self.before: list[int | None] = []
        self.transitions: list[dict[str, Any]] = []
        self.last: dict[int, tuple[int, Sequence[int]]] = {}

    def insert(self, coming: Trajectory) -> None:
        arrays, T, B = dict(coming.arrays), coming.T, coming.B
        valid, place = arrays.get("valid", np.ones((T, B), bool)), {}
        if not valid.any():
            return
        seq, ended_with = self.last.get(coming.actor_id, (-2, []))
        for t in range(T + 1):
            for b in range(B):
                place["obs", t, b] = len(self.rows)
                before = None
                if t and (t - 1, b) not in final_at(arrays) and valid[t - 1, b]:
                    before = place["obs", t - 1, b]
                elif t == 0 and seq + 1 == coming.seq and self.held(ended_with[0]):
                    same = np.array_equal(self.rows[ended_with[b]], arrays["obs"][0, b])
                    before = self.before[ended_with[b]] if same else None
                self.rows.append(arrays["obs"][t, b])
                self.before.append(before)
        for t, b in final_at(arrays):
            place["final", t, b] = len(self.rows)
            self.rows.append(shown(arrays, ("final", t, b)))
            self.before.append(place["obs", t, b])
        self.last[coming.actor_id] = coming.seq, [place["obs", T, b] for b in range(B)]
        for transition in slow_transitions(arrays, self.n_step, self.gamma):
            places = {"row": place[transition["at"]], "next_row": place[transition["next_at"]]}
            self.transitions.append(transition | places)

    def held(self, row: int) -> bool:
        return row >= len(self.rows) - self.kept

    def serials(self) -> list[int]:
        oldest = max(0, len(self.transitions) - self.capacity)
        return [i for i in range(oldest, len(self.transitions)) if self.held(self.transitions[i]["row"])]

    def observation(self, row: int) -> Array:
        """[stack, ...], or the row alone where the stack is 1."""
        if self.stack == 1:
            return self.rows[row]
        frames, at = [self.rows[row]], self.before[row]
        while len(frames) < self.stack:
            there = at is not None and self.held(at)
            frames.insert(0, self.rows[at] if there else np.zeros_like(self.rows[0]))
            at = self.before[at] if there else None
        return np.stack(frames)
