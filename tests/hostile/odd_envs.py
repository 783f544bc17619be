"""Environments that learn well and leave their process in disorder. Importing this registers them:
``--set task.env=tests.hostile.odd_envs:Threads-v0``.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import Any

import gymnasium
import numpy as np

from tests.tasks.bad_envs import Good


class Threads(Good):
    """Leaves a thread running that nobody ends."""

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=threading.Event().wait, name="odd-thread").start()


class Moves(Good):
    """Changes the working directory."""

    def __init__(self) -> None:
        super().__init__()
        os.chdir(tempfile.gettempdir())


class Undrawn(Good):
    """Says that it can be drawn, and cannot."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's way)

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> None:
        return None


class Endless(Good):
    """Its episodes have no end."""

    def step(self, action: int) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        return np.zeros(4, np.float32), 1.0, False, False, {}


for made in Good.__subclasses__():
    if made.__module__ == __name__:
        gymnasium.register(f"{made.__name__}-v0", entry_point=made)
