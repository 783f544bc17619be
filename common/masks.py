"""Masks of actions: bool, an entry for each choice, True where it is allowed; those of several components side by side.

They are an observation (types.py: MASK). Here is what everybody insists on, actors and the learner.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headrace.common import named
from headrace.common.errors import Rejected
from headrace.common.types import MASK, Array


def allows_any(mask: Array, choices: Sequence[int]) -> Array:
    """Whether there is an allowed choice for every component: ``mask`` [..., sum of choices] -> bool [...]."""
    return np.asarray(np.logical_or.reduceat(mask, _starts(choices), axis=-1).all(-1))


def check(arrays: Mapping[str, Array], choices: Sequence[int]) -> None:
    """Of a fragment's arrays, ``action`` in its range: no action was taken that its mask forbids, and wherever one is
    to be taken there is one. (An episode may have ended where there was none.) Raises :class:`Rejected` (mask)."""
    mask = arrays.get(named.array_name("obs", MASK))
    if mask is None or not choices:
        return
    action, steps = arrays["action"], len(arrays["action"])
    acted = arrays["valid"] if "valid" in arrays else np.ones(action.shape[:2], np.bool_)
    taken = np.take_along_axis(mask[:steps], action.reshape(*acted.shape, -1) + _starts(choices), -1).all(-1)
    if forbidden := np.count_nonzero(acted & ~taken):
        raise Rejected("mask", f"{forbidden} of {taken.size} actions are ones that their action_mask forbids")
    without = np.count_nonzero(~allows_any(mask[:steps][acted], choices))
    without += np.count_nonzero(~allows_any(mask[steps:], choices))
    final = arrays.get(named.array_name("final_obs", MASK))
    if final is not None:
        cut = arrays["truncated"][arrays["terminated"] | arrays["truncated"]]
        without += np.count_nonzero(~allows_any(final[cut], choices))
    if without:
        raise Rejected("mask", f"an action_mask allows nothing in {without} observations that are to be acted on")


def _starts(choices: Sequence[int]) -> Array:
    """Where each component's choices begin, int64 [components]."""
    return np.cumsum([0, *choices[:-1]])
