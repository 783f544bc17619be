"""A fragment as rows and the steps between them: every observation stands once, a transition is a pair of rows.

    rows         obs in (t, b) order, then final_obs:   row(t, b) = t B + b,   end number k is row (T + 1) B + k
    transition   row -> row + ahead, with action, n-step reward and discount
    previous     the row one step before in the same episode: a stack of frames is row, previous[row], ...

Pure: knows arrays only. learner/replay.py keeps the rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headrace.common import named
from headrace.common.errors import Rejected
from headrace.common.types import Array

#: What :func:`previous` says of a row with which an episode, or the fragment, begins.
NONE = -1


def transitions(arrays: Mapping[str, Array], n_step: int, gamma: float) -> dict[str, Array]:
    """All valid transitions of one fragment, in (t, b) row-major order.

    Takes ``action`` [T, B, ...], ``reward``, ``terminated``, ``truncated`` [T, B], ``final_obs`` [K, ...] and, where
    there is one, ``valid`` [T, B]. Returns N rows of

        row       where the window begins, int64
        ahead     rows from there to the state k steps on: the episode's last one where the window ends with it, int32
        action    taken at the window's beginning
        reward    sum over i < k of gamma^i r_{t+i}, float32 (Sutton & Barto, eq. 7.1)
        discount  gamma^k, and 0 where the window ends in a terminal state, float32

    with k = ``n_step``, less where the episode or the fragment ends sooner, or an invalid step follows. At the
    fragment's end the window is cut short and bootstraps from the last observation: no step waits for another fragment.
    Raises :class:`Rejected` when ``final_obs`` does not have one row per episode end.
    """
    reward, terminated = arrays["reward"], arrays["terminated"]
    ended, valid = _ended(arrays), _valid(arrays)
    T, B = reward.shape
    returns = np.zeros(reward.shape)
    length = np.zeros(reward.shape, np.int64)
    running = np.ones_like(ended)  # windows that go on at step t + i
    for i in range(min(n_step, T)):
        grows = running[: T - i] & valid[i:]
        returns[: T - i] += np.where(grows, gamma**i * reward[i:], 0.0)
        length[: T - i] += grows
        running[: T - i] = grows & ~ended[i:]

    t, b = np.nonzero(valid)
    length = length[t, b]
    last = t + length - 1
    row, next_row = t * B + b, (last + 1) * B + b
    at_end = ended[last, b]
    end_number = np.cumsum(ended.ravel()).reshape(ended.shape) - 1
    next_row[at_end] = (T + 1) * B + end_number[last[at_end], b[at_end]]
    return {
        "row": row,
        "ahead": (next_row - row).astype(np.int32),
        "action": arrays["action"][t, b],
        "reward": returns[t, b].astype(np.float32),
        "discount": np.where(terminated[last, b], 0.0, gamma**length).astype(np.float32),
    }


def previous(arrays: Mapping[str, Array]) -> Array:
    """The row one step before each row in the same episode, int64 [(T + 1) B + K]; :data:`NONE` where there is none.

    An episode begins after an end, and after an invalid step (which an environment spends on its reset).
    """
    ended = _ended(arrays)
    T, B = ended.shape
    rows = np.arange(-B, T * B).reshape(T + 1, B)
    rows[0] = NONE
    rows[1:][ended | ~_valid(arrays)] = NONE
    return np.concatenate([rows.ravel(), np.flatnonzero(ended)])


def _ended(arrays: Mapping[str, Array]) -> Array:
    """Steps that end an episode, bool [T, B]."""
    ended: Array = arrays["terminated"] | arrays["truncated"]
    ends = np.count_nonzero(ended)
    for name, array in arrays.items():
        if named.is_of("final_obs", name) and len(array) != ends:
            raise Rejected("shape", f"{name} has {len(array)} rows for {ends} episode ends")
    return ended


def _valid(arrays: Mapping[str, Array]) -> Array:
    return arrays["valid"] if "valid" in arrays else np.ones(arrays["reward"].shape, bool)
