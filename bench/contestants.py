"""Who runs side by side: a row each with its name, what it is, the command line, and how to read its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from others.env import ensure
from time_to import since_start_s, time_to

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Race:
    """What every contestant is asked for: that many steps from that seed, and when it first reached the threshold
    (None: steps/s only). ``folder`` is empty and its own."""

    steps: int
    seed: int
    threshold: float | None
    folder: Path


@dataclass(frozen=True)
class Contestant:
    """``argv(race)`` is the command; ``parse(race)`` reads steps, wall_s, steps_per_s and, where it was asked for,
    to_greedy (greedy.first_pass) from what the command left behind."""

    title: str
    argv: Callable[[Race], Sequence[str]]
    parse: Callable[[Race], dict[str, Any]]


def _script(title: str, python: Callable[[], Path], script: str, *options: str, greedy: bool = True) -> Contestant:
    """A contestant that takes --steps, --seed, --until-greedy and --json, and writes its result as JSON."""

    def argv(race: Race) -> list[str]:
        until = ["--until-greedy", str(race.threshold)] if greedy and race.threshold is not None else []
        wanted = ["--steps", str(race.steps), "--seed", str(race.seed), "--json", str(race.folder / "result.json")]
        return [str(python()), str(HERE / script), *options, *wanted, *until]

    def parse(race: Race) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((race.folder / "result.json").read_text())
        return result

    return Contestant(title, argv, parse)


def _headrace(title: str, preset: str, *overrides: str) -> Contestant:
    def argv(race: Race) -> list[str]:
        sets = [f"run.seed={race.seed}", f"run.total_steps={race.steps}", "run.snapshot_every_steps=25000", *overrides]
        words = [word for one in sets for word in ("--set", one)]
        command = [str(Path(sys.executable).parent / "headrace"), "train", preset, *words]
        return [*command, "--run-dir", str(race.folder / "run"), "--no-gif", "--episodes", "0"]

    def parse(race: Race) -> dict[str, Any]:
        run = race.folder / "run"
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        # By the wall clock, from the learner's start to its last row; the learner's own count leaves out what it
        # does between its steps (rows, snapshots, checkpoints).
        wall = max(since_start_s(run, run / "metrics.jsonl"), last["time_s"])
        steps = last["env_steps"]
        found = {"steps": steps, "wall_s": wall, "steps_per_s": steps / wall, "own_train_s": last["time_s"]}
        return found if race.threshold is None else {**found, "to_greedy": time_to(run, race.threshold)}

    return Contestant(title, argv, parse)


def _ours() -> Path:
    return Path(sys.executable)


def _theirs(name: str) -> Callable[[], Path]:
    return lambda: ensure(name)


_SF = "others/sample_factory.py"
CONTESTANTS: dict[str, Contestant] = {
    "headrace": _headrace("Headrace, `lunarlander-ppo`", "lunarlander-ppo"),
    "headrace-envpool": _headrace(
        "Headrace, EnvPool, one actor of 16", "lunarlander-ppo", "task.backend=envpool", "actors.processes=1",
        "actors.envs=16", "algorithm.fragments=1",
    ),
    "bare": _script("bare script, fused Adam", _ours, "bare.py"),
    "bare-foreach": _script("bare script, foreach Adam", _ours, "bare.py", "--adam", "foreach"),
    "bare-1024": _script("bare script, minibatch 1024", _ours, "bare.py", "--minibatch", "1024"),
    "bare-envpool": _script("bare script, EnvPool", _ours, "bare.py", "--backend", "envpool"),
    "sb3-same": _script(
        "Stable-Baselines3, the same hyper-parameters, one thread, no render mode",
        _theirs("sb3"), "others/sb3.py", "same",
    ),
    "sb3-zoo": _script(
        "Stable-Baselines3, rl-zoo hyper-parameters, one thread, no render mode",
        _theirs("sb3"), "others/sb3.py", "zoo",
    ),
    "sb3-shipped": _script(
        "Stable-Baselines3, rl-zoo hyper-parameters, `make_vec_env` as shipped",
        _theirs("sb3"), "others/sb3.py", "shipped",
    ),
    "sf-same": _script(
        "Sample Factory, 2 x 16, the same minibatch and epochs (LunarLander-v2)",
        _theirs("sample_factory"), _SF, "same", greedy=False,
    ),
    "sf-fastest": _script(
        "Sample Factory, 2 x 32, rollout 64, minibatch 1024 (LunarLander-v2)",
        _theirs("sample_factory"), _SF, "fastest", greedy=False,
    ),
    "sf-default": _script(
        "Sample Factory, 2 x 8, its defaults (LunarLander-v2)", _theirs("sample_factory"), _SF, "default", greedy=False,
    ),
}  # fmt: skip
