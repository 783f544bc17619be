"""An environment whose numbers were changed after it was made: for physics that its constructor does not take.

    task.wrappers = [{ name = "headrace.tasks.changed:Changed", gravity = 20.0, force_mag = 5.0 }]

(LunarLander takes its own: task.kwargs = { gravity = -5.0, enable_wind = true, wind_power = 15.0 }.)
"""

from __future__ import annotations

from typing import Any

import gymnasium

from headrace.common.errors import UsageError


class Changed(gymnasium.Wrapper):  # type: ignore[misc]  # Gymnasium is untyped to mypy
    """Sets numbers that the environment itself holds as attributes. What it computed from them before stays as it is:
    CartPole's ``length`` wants its ``polemass_length`` beside it. Raises :class:`UsageError` for one that it has
    not."""

    def __init__(self, env: gymnasium.Env[Any, Any], **attributes: float) -> None:
        super().__init__(env)
        held = env.unwrapped
        known = sorted(name for name, value in vars(held).items() if _is_number(value) and not name.startswith("_"))
        for name, value in attributes.items():
            if name not in known or not _is_number(value):
                raise UsageError(
                    f"task.wrappers: Changed sets {name} = {value!r}; {type(held).__name__} holds these numbers: "
                    f"{', '.join(known) or 'none'}"
                )
            setattr(held, name, value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
