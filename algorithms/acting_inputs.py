"""What stands between an observation and a network, and between a network and an action, in numpy: vectors normalised,
whole numbers as one-hot vectors, masks obeyed. Learners do the same in torch (normalise.py, branches.py,
distributions.py), and exported files in ONNX (export.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.common import named
from headrace.common.types import Array, Field

#: Normalised observations beyond this are cut off: a feature that never moved must not blow up when it does.
OBS_CLIP = 10.0
#: A score that no action is taken with: all but 0 of any softmax, and finite, so that 0 times it is 0.
NEVER = np.float32(-1e9)


def norms(tensors: Mapping[str, Array], fields: Mapping[str, Field]) -> dict[str, tuple[Array | None, Array | None]]:
    """Mean and scale of each observation, as far as it is normalised."""
    kinds = ("obs_mean", "obs_scale")
    mean_scale = {name: [tensors.get(named.array_name(kind, name)) for kind in kinds] for name in fields}
    return {name: (mean, scale) for name, (mean, scale) in mean_scale.items()}


def prepared(x: Array, field: Field, mean: Array | None, scale: Array | None) -> Array:
    """An observation [B, ...] as a network takes it (normalise.py): a vector is normalised, others are as they are."""
    return normalised(x.reshape(len(x), -1), mean, scale) if field.is_vector and not field.choices else x


@lru_cache
def codes(choices: tuple[int, ...]) -> tuple[Array, Array]:
    """Of each place of a one-hot vector, which entry it is of and which value it stands for: int64 [sum of choices]."""
    return np.repeat(np.arange(len(choices)), choices), np.concatenate([np.arange(n) for n in choices])


def one_hot(x: Array, choices: tuple[int, ...]) -> Array:
    """Whole numbers [B] or [B, D], each below its ``choices``, as float32 [B, sum of choices]."""
    entry, value = codes(choices)
    return np.asarray(x.reshape(len(x), -1)[:, entry] == value, np.float32)


def normalised(x: Array, mean: Array | None, scale: Array | None) -> Array:
    """Observations [B, F] as the learner's network saw them (normalise.py), float32; as they are where nothing is
    normalised."""
    if mean is None:
        return np.asarray(x, np.float32)
    x = np.asarray(x, np.float32) - mean  # numpy would make float64 of int64 and float32
    x *= scale
    np.minimum(x, OBS_CLIP, out=x)  # the two together: a third of what np.clip costs on small arrays
    np.maximum(x, -OBS_CLIP, out=x)
    return x


def masked(scores: Array, obs: Any) -> Array:
    """``scores`` [B, choices] with those that the mask of ``obs`` forbids so low that no argmax and no sample takes
    them."""
    mask = named.mask(obs)
    return scores if mask is None else np.where(mask, scores, NEVER)


def laid_out(choices: Sequence[int]) -> tuple[Array, Array]:
    """Where the scores [sum of choices] of several components stand as a table, a row each: int64 [D, most choices],
    and bool which places of it there are."""
    most, first = np.arange(max(choices)), np.cumsum([0, *choices[:-1]])[:, None]
    there = most < np.array(choices)[:, None]
    return np.where(there, first + most, 0), there
