"""One greedy episode for the eye: as a GIF, or in a window."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from headrace.algorithms.base import Policy
from headrace.common.errors import EnvironmentFailed, HeadraceError, UsageError
from headrace.common.own_code import cause
from headrace.common.seeding import evaluation_seeds
from headrace.launch.config import Config
from headrace.tasks.gymnasium_batch import GymnasiumBatch
from headrace.tasks.gymnasium_env import make_env

_GIF_FPS, _GIF_WIDTH, _MAX_FRAMES = 25, 300, 400


def write_gif(
    config: Config, policy: Policy, path: Path, seed: int | None = None, stepped: Callable[[], None] = lambda: None
) -> None:
    """One greedy episode (of ``seed``; default: the first that is reported), every other frame, as a GIF people can
    look at. ``stepped`` is called after every step. Raises :class:`EnvironmentFailed` for an environment that cannot be
    drawn."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws without looking for a screen
    frames: list[Any] = []
    with contextlib.closing(_episode(config, policy, "rgb_array", seed)) as episode:
        for step, env in zip(range(2 * _MAX_FRAMES), episode, strict=False):
            if step % 2 == 0:
                frames.append(_frame(env, config.task.env))
            stepped()
    try:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 // _GIF_FPS, loop=0, optimize=True)
    except OSError as error:
        raise HeadraceError(f"{path}: {error.strerror or error}") from error


def show(config: Config, policy: Policy) -> None:
    """One greedy episode in a window, at the environment's own speed. Raises :class:`UsageError` where there is no
    screen, or where the environment has no window."""
    if sys.platform.startswith("linux") and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY"))):
        raise UsageError("--render: this machine has no screen (neither DISPLAY nor WAYLAND_DISPLAY is set); --gif F "
                         "writes the episode as a picture")  # fmt: skip
    try:
        with contextlib.closing(_episode(config, policy, "human", None)) as episode:
            for _ in episode:  # it draws by itself, as Gymnasium has it for "human", and keeps its own pace
                pass
    except EnvironmentFailed as error:
        raise UsageError(f"--render: no window: {error}") from error


def _episode(config: Config, policy: Policy, mode: str, seed: int | None) -> Generator[Any, None, None]:
    """The environment before each step of a greedy episode."""
    env = make_env(config.task.env, dict(config.task.kwargs), mode, config.task.wrappers)
    batch = GymnasiumBatch.of([env], config.task.env)
    try:
        obs, state = batch.reset(evaluation_seeds(1) if seed is None else [seed]), None
        rng = np.random.default_rng(0)
        while True:
            yield env
            acted = policy.act(obs, state, rng, explore=False)
            ((shown, _, terminated, truncated),) = batch.step_some(acted.action, [0])
            state = acted.state
            if terminated or truncated:
                after, state = batch.goes_on(0), None
                if after is None:
                    return
                shown = after
            obs = batch.stack([shown])
    finally:
        batch.close()


def _frame(env: Any, env_id: str) -> Any:
    """What an environment draws, as a picture."""
    from PIL import Image

    try:
        frame = Image.fromarray(np.asarray(env.render()))
        return frame.resize((_GIF_WIDTH, max(1, frame.height * _GIF_WIDTH // frame.width)))
    except Exception as error:  # other people's code, or what it returned is no picture
        raise EnvironmentFailed(f"environment {env_id!r} cannot be drawn: {cause(error)}") from error
