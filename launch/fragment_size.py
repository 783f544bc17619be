"""Do the fragments of a config fit into a record: their arrays by number and name, their bytes into
``transport.record_bytes``? Counted unpacked, as every carrier counts them."""

from __future__ import annotations

from headrace.algorithms.base import Experience, Groups
from headrace.common import codec
from headrace.common.errors import Rejected, UsageError
from headrace.common.types import Layout, Schema

#: What a record holds besides its arrays: prefix, header and alignment, and in the header each episode's figures.
_FRAME_BYTES, _EPISODE_BYTES = 2048, 24


def check_arrays(schema: Schema, env_id: str) -> None:
    """Raises :class:`UsageError` where a record cannot hold arrays of so many, such long names or so many axes."""
    try:  # most have two axes before their own
        codec.check_fields({name: 2 + len(field.shape) for name, field in schema.fields.items()})
    except Rejected as refusal:
        raise UsageError(f"task.env {env_id!r} shows what no record can hold: {refusal}") from refusal


def check(schema: Schema, experience: Experience, envs: int, steps: int, record_bytes: int) -> str:
    """Raises :class:`UsageError` where no fragment can fit; returns a warning where the largest possible one does not
    (every step ends an episode, or every episode of a group goes on to its limit), else ""."""
    if isinstance(experience, Groups):
        envs, steps, key = experience.size, experience.max_steps, "algorithm.max_steps"
    else:
        key = "actors.fragment_steps"
    always = nbytes(schema, envs, steps)
    worst = nbytes(schema, envs, steps, every_step_ends=True) + _FRAME_BYTES
    if worst <= record_bytes:
        return ""
    if isinstance(experience, Groups):
        certain, what = False, f"a group of {envs} episodes of {steps} steps comes"
    else:
        certain = always > record_bytes
        what = f"fragments of {envs} x {steps} steps come" + ("" if certain else ", if every step ended an episode,")
    most = _most_steps(schema, envs, record_bytes, every_step_ends=not certain)
    fits = f"{key} up to {most} fits" if most else "not even one step fits"
    size = always if certain else worst
    line = f"{key} = {steps}: {what} to {size:,} bytes, and transport.record_bytes is {record_bytes:,}; {fits}"
    if certain:
        raise UsageError(line)
    return line


def nbytes(schema: Schema, envs: int, steps: int, every_step_ends: bool = False) -> int:
    """Bytes of a fragment's arrays, and of its episodes where there are that many."""
    ends = steps if every_step_ends else 0
    rows = {Layout.STEP: steps, Layout.CHAIN: steps + 1, Layout.FINAL: ends, Layout.START: 1}
    episodes_bytes = envs * steps * _EPISODE_BYTES if every_step_ends else 0
    return episodes_bytes + sum(rows[field.layout] * envs * field.nbytes for field in schema.fields.values())


def _most_steps(schema: Schema, envs: int, record_bytes: int, every_step_ends: bool) -> int:
    none = nbytes(schema, envs, 0, every_step_ends) + _FRAME_BYTES
    return max(0, record_bytes - none) // (nbytes(schema, envs, 1, every_step_ends) + _FRAME_BYTES - none)
