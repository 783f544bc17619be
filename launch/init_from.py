"""A new run that starts from what another one has learnt: ``train --init-from RUN`` (run.init_from).

Taken over: the networks (target and reference networks with them) and the normalisers of RUN's newest checkpoint. Begun
afresh: the optimiser's moments, which belong to the old learning rate and the old losses, the random numbers, replay
and every counter and schedule.
"""

from __future__ import annotations

from pathlib import Path

from headrace.algorithms.base import Algorithm, State
from headrace.common.errors import UsageError
from headrace.common.types import Field, Spaces
from headrace.launch.build import Blueprint
from headrace.launch.run_files import stored_config
from headrace.learner import checkpoint_reader

#: What decides about the shapes of the parameters, and what they mean.
_NETWORK = ("name", "network", "network_kwargs", "hidden", "activation", "layer_norm", "memory", "memory_width",
            "dueling", "frame_stack")  # fmt: skip
#: How the tensors of optimisers begin in a checkpoint: adam, adam_q (algorithms/optimise.py: Adam).
_OPTIMISER = "adam"


def check(blueprint: Blueprint) -> None:
    """Can this run start from that one? Raises :class:`UsageError`. Does nothing where it starts from none."""
    source = blueprint.config.run.init_from
    if source is None:
        return
    other = Blueprint(stored_config(source))
    for key in _NETWORK:
        theirs, ours = other.config.algorithm.get(key), blueprint.config.algorithm.get(key)
        if theirs != ours:
            raise UsageError(f"--init-from {source}: algorithm.{key} is {theirs!r} there and {ours!r} here")
    there, here = _seen_and_done(other.spaces), _seen_and_done(blueprint.spaces)
    if there != here:
        envs = other.config.task.env, blueprint.config.task.env
        raise UsageError(f"--init-from {source}: {envs[0]} has {there}, {envs[1]} has {here}")
    if not any((source / "checkpoints").glob("ckpt-*")):
        raise UsageError(f"--init-from {source}: it has no checkpoint yet")


def _seen_and_done(spaces: Spaces) -> str:
    """What the first and the last layer of a network are made for."""
    shown = ", ".join(f"{name} {_counted(field)}".strip() for name, field in spaces.obs.items())
    if spaces.discrete:
        return f"observations {shown} and {spaces.n_actions} actions"
    many = f"{_counted(spaces.action)}" if spaces.action.choices else f"{spaces.action_dim} numbers"
    return f"observations {shown} and actions of {many}"


def _counted(field: Field) -> str:
    return f"{list(field.shape)}" + (f" below {field.below}" if field.below else "")


def begin(algorithm: Algorithm, source: Path) -> None:
    """Give a fresh algorithm the parameters and normalisers of another run's newest checkpoint."""
    saved = checkpoint_reader.latest(source / "checkpoints", parts=["algorithm"])
    if saved is None:
        raise UsageError(f"run.init_from {source}: no complete checkpoint in it")
    fresh, learnt = algorithm.state(), saved.parts["algorithm"].tensors
    taken = {name: tensor for name, tensor in learnt.items() if not name.startswith(_OPTIMISER)}
    algorithm.restore(State({**fresh.tensors, **taken}, fresh.values))
