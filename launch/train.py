"""headrace train: all roles on this machine as real processes, watched, shown, and evaluated at the end.

config, checked -> run directory -> paramserver + learner + actors -> rows on the screen -> evaluation, curve, GIF
                                    and beside them, from the first version on, an evaluator
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.launch import init_from, resume, run_files
from headrace.launch import run_dir as run_dirs
from headrace.launch.build import Blueprint, plan_line, with_addresses
from headrace.launch.child import Child
from headrace.launch.config import Config
from headrace.launch.device import check_device
from headrace.launch.finish import finish
from headrace.launch.load import load
from headrace.launch.roles import add_config_arguments, place
from headrace.launch.run_dir import RunDir
from headrace.launch.screen import Screen
from headrace.launch.socket_dir import held_socket_dir, remove_dead_socket_dirs, used_socket_dir
from headrace.launch.solved import stop_at
from headrace.launch.stopping import Stop
from headrace.launch.supervisor import ProcessDied, Supervisor
from headrace.observe import trackers

_POLL_S = 0.25
#: Grace periods: the learner writes a checkpoint, actors finish a fragment and flush.
_LEARNER_GRACE_S, _OTHERS_GRACE_S = 60.0, 5.0
#: A tracker sends what is left. (MLflow may be making its database, which it does not survive being killed at.)
_TRACKER_GRACE_S = 60.0
#: What the run does not need starts so long after the first version: the start of the others is over, and a run that
#: takes no longer is spared.
_BESIDE_AFTER_S = 2.0
#: One thread per process: many processes share few cores, and results do not depend on the number of cores.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET|FILE", help="what to train (see `headrace presets`)")
    add_config_arguments(parser)
    parser.add_argument("--run-dir", type=place, metavar="D", help="where everything is kept (default: runs/PRESET-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    parser.add_argument("--new-log", action="store_true", help=resume.NEW_LOG_HELP)
    parser.add_argument("--init-from", type=Path, metavar="RUN", help="a new run from the parameters of this one")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="greedy episodes at the end (0: none)")
    parser.add_argument("--no-gif", action="store_true", help="no GIF at the end")


def run(args: argparse.Namespace) -> int:
    config, run_dir = _resume(args) if args.resume else _begin(args)
    if args.resume and (said := resume.finished(run_dir.path, config)):
        print(said)
        return 0
    print(f"{plan_line(Blueprint(config))}\nrun directory: {run_dir.path}", flush=True)
    overrides = args.overrides if args.resume else []  # a new run has them in its config.toml
    again = shlex.join(["headrace", "train", "--resume", "--run-dir", str(run_dir.path), *_set(overrides)])
    remove_dead_socket_dirs()
    try:
        with held_socket_dir(used_socket_dir(config.run.id, config.transport.url, config.weights.address)):
            finished = _train(config, run_dir, _learner_options(args), overrides)
    except ProcessDied as death:
        print(f"{death.output}\n{death}; go on with: {again}", file=sys.stderr)
        return 1
    except UsageError:
        run_dir.abandon()
        raise
    if not finished:
        print(f"stopped; go on with: {again}")
    else:
        finish(config, run_dir.path, args.episodes, gif=not args.no_gif)
    return 0


# --- before: everything is checked, then the directory is claimed, then something is written -----------------------


def _begin(args: argparse.Namespace) -> tuple[Config, RunDir]:
    """A fresh run: its config in a directory of its own."""
    if args.preset is None:
        raise UsageError("train: name a preset or a file; `headrace presets` lists what is there")
    start = [] if args.init_from is None else [f"run.init_from={json.dumps(str(args.init_from.resolve()))}"]
    config = with_addresses(load(args.preset, [*args.overrides, *start]))
    runs = place("runs")
    blueprint = _checked(config)
    init_from.check(blueprint)
    run_dir = run_dirs.claim(args.run_dir) if args.run_dir else run_dirs.claim_next(Path(args.preset).stem, runs)
    try:
        (run_dir.path / "logs").mkdir(exist_ok=True)
        run_files.write(run_dir.path, blueprint)
    except OSError as error:
        run_dir.abandon()
        raise UsageError(f"run directory {run_dir.path}: {error.strerror}") from error
    return config, run_dir


def _resume(args: argparse.Namespace) -> tuple[Config, RunDir]:
    """A run that goes on. What is different is kept by its learner, once it does."""
    if args.run_dir is None:
        raise UsageError("--resume: give the run to go on with, --run-dir D")
    before = run_files.stored_config(args.run_dir)
    run_dir = run_dirs.claim_again(args.run_dir)
    config = run_files.stored_config(args.run_dir, args.overrides)
    resume.changes(before, config, args.new_log)
    _checked(config)
    (run_dir.path / "logs").mkdir(exist_ok=True)
    return config, run_dir


def _checked(config: Config) -> Blueprint:
    """All that can be known to be wrong beforehand is said now."""
    blueprint = Blueprint(config)
    blueprint.check()
    check_device(config.learner)
    stop_at(config)
    trackers.check(config.run.trackers)
    return blueprint


def _learner_options(args: argparse.Namespace) -> list[str]:
    return [f"--{option}" for option, wanted in (("resume", args.resume), ("new-log", args.new_log)) if wanted]


# --- while ---------------------------------------------------------------------------------------------------------


def children(config: Config, run_dir: RunDir, for_learner: Sequence[str], overrides: Sequence[str]) -> list[Child]:
    """The processes of a run."""
    # A learner that died needs a person to look; the others hold nothing that is not elsewhere.
    learner = replace(_child(run_dir, overrides, "learner", 0, *for_learner), restart=False)
    actors = [_child(run_dir, overrides, "actor", i, "--index", str(i)) for i in range(config.actors.processes)]
    return [_child(run_dir, overrides, "paramserver", 0), learner, *actors]


def beside(config: Config, run_dir: RunDir, overrides: Sequence[str]) -> list[Child]:
    """The processes that a run does without, if need be."""
    found = [_tracker(run_dir, name) for name in dict.fromkeys(config.run.trackers)]
    if config.run.evaluation_share > 0:
        found.append(_child(run_dir, overrides, "evaluator", 0, "--every-s", "1"))
    return [replace(child, needed=False) for child in found]


def _tracker(run_dir: RunDir, name: str) -> Child:
    argv = [sys.executable, "-m", "headrace.launch.cli", "track", str(run_dir.path), "--to", name, "--follow"]
    log = run_dir.path / "logs" / f"{name}.log"
    return Child(name, "tracker", argv, log, True, _ONE_THREAD, (run_dir.lock,))


def _child(run_dir: RunDir, overrides: Sequence[str], role: str, index: int, *extra: str) -> Child:
    """What it is started with is what a person would type for a single role."""
    path = run_dir.path
    common = ["--config", str(path / "config.toml"), *_set(overrides), "--run-dir", str(path)]
    argv = [sys.executable, "-m", "headrace.launch.cli", role, *common, *extra]
    log = path / "logs" / f"{role}-{index}.log"
    return Child(f"{role}-{index}", role, argv, log, True, _ONE_THREAD, (run_dir.lock,))


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _train(config: Config, run_dir: RunDir, for_learner: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether it came to its end, by its steps or because its task is solved; False when it was told to stop. Raises
    :class:`ProcessDied`, and :class:`UsageError` where a role found something wrong before anything was learnt."""
    stop = Stop()
    all_of_them = children(config, run_dir, for_learner, overrides)
    goes_on = "--resume" in for_learner and any((run_dir.path / "checkpoints").glob("ckpt-*"))
    supervisor = Supervisor(
        all_of_them, Metrics("supervisor"), moved_before=goes_on, patience_s=config.weights.down_timeout_s
    )
    screen = Screen(config, run_dir.path)
    waiting = beside(config, run_dir, overrides)
    others = [c.name for c in (*all_of_them, *waiting) if c.role not in ("learner", "tracker")]
    try:
        supervisor.start()
        while not stop():
            if screen.read():
                supervisor.moved()
                while waiting:
                    supervisor.add(waiting.pop(), _BESIDE_AFTER_S)
            if screen.solved:
                break
            supervisor.finishing = screen.finished  # the last row is written before the actors are let go
            if "learner-0" in supervisor.poll():
                break
            screen.show(supervisor)
            time.sleep(_POLL_S)
        supervisor.end("learner-0", _LEARNER_GRACE_S)
        screen.read()
    finally:
        supervisor.stop(["learner-0"], _LEARNER_GRACE_S)
        supervisor.stop(others, _OTHERS_GRACE_S)
        supervisor.stop(list(config.run.trackers), _TRACKER_GRACE_S)
        screen.close(supervisor)
        supervisor.close()
        stop.over()
    return screen.finished or screen.solved
