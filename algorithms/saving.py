"""The state of an algorithm is what its public attributes hold: nobody lists tensors twice.

    class PPO(Stateful): ...        # state() and restore() of the contract (base.py)

Saved are attributes without a leading underscore: whatever has a ``state_dict`` (torch.nn.Modules, Adam), tensors,
random generators, and counters (int, float). Tensors are named ``attribute.name``. Importing this costs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.algorithms.base import State
from headrace.common.errors import UsageError
from headrace.common.seeding import generator_state, restore_generator
from headrace.common.types import Array

if TYPE_CHECKING:
    from torch import Tensor


class Stateful:
    """Saves and restores itself. Restored tensors keep their memory: views and recorded graphs stay right."""

    def state(self) -> State:
        tensors: dict[str, Array] = {
            name: tensor.detach().cpu().numpy().copy() for name, tensor in _tensors(self).items()
        }
        values: dict[str, Any] = {}
        for name, value in _public(self):
            if isinstance(value, np.random.Generator):
                values[name] = generator_state(value)
            elif type(value) in (int, float):
                values[name] = value
        return State(tensors, values)

    def restore(self, state: State) -> None:
        """Raises :class:`UsageError` when the state is of another architecture."""
        mine = {name: list(tensor.shape) for name, tensor in _tensors(self).items()}
        theirs = {name: list(tensor.shape) for name, tensor in state.tensors.items()}
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                there, here = theirs.get(name, "nothing"), mine.get(name, "nothing")
                raise UsageError(f"checkpoint of another network: {name} is {there} there and {here} in this run")
        for name, value in list(_public(self)):
            if hasattr(value, "load_state_dict"):
                keys = value.state_dict().keys()
                value.load_state_dict({key: _tensor(state.tensors[f"{name}.{key}"]) for key in keys})
            elif _is_tensor(value):
                value.copy_(_tensor(state.tensors[name]))
            elif isinstance(value, np.random.Generator):
                setattr(self, name, restore_generator(state.values[name]))
            elif type(value) in (int, float):
                setattr(self, name, type(value)(state.values[name]))


def _public(owner: object) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(owner).items() if not name.startswith("_"))


def _tensors(owner: object) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in _public(owner):
        if hasattr(value, "state_dict"):
            found |= {f"{name}.{key}": tensor for key, tensor in value.state_dict().items()}
        elif _is_tensor(value):
            found[name] = value
    return found


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensor(array: Array) -> Tensor:
    import torch

    return torch.from_numpy(np.array(array))
