"""headrace train: all roles on this machine as real processes, watched, shown, and evaluated at the end.

    config, checked -> run directory -> paramserver + learner + actors -> rows on the screen -> evaluation, curve, GIF
    '-------- begin, go_on --------'    '--------------- train ----------------'   '--------- finish ---------'

From Python (launch/background.py) a run is begun, trained and finished by the same three.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.launch import init_from, resume, run_files, train_seeds
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
from headrace.launch.stopping import Stop
from headrace.launch.supervisor import ProcessDied, Supervisor
from headrace.observe.table import Display, open_display

_POLL_S = 0.25
#: Grace periods: the learner writes a checkpoint, actors finish a fragment and flush.
_LEARNER_GRACE_S, _OTHERS_GRACE_S = 60.0, 5.0
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
    train_seeds.add_arguments(parser)
    parser.add_argument("--supervised", type=int, metavar="FD", help=argparse.SUPPRESS)


@dataclass(frozen=True)
class Begun:
    """A run whose directory is held and whose config was checked. ``resumed``: the learner's options where it goes on,
    empty for a fresh run; ``overrides``: what is set differently then (a new run has it in its config.toml); ``env``:
    variables for its processes."""

    config: Config
    run_dir: RunDir
    resumed: Sequence[str] = ()
    overrides: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.run_dir.path

    @property
    def title(self) -> str:
        return f"{self.config.algorithm_label} on {self.config.task.env}"

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return shlex.join(["headrace", "train", "--resume", "--run-dir", str(self.path), *_set(self.overrides)])


def run(args: argparse.Namespace) -> int:
    if train_seeds.meant(args):
        return train_seeds.run(args)
    begun = _resume(args) if args.resume else _begin(args)
    if begun.resumed and (said := resume.finished(begun.path, begun.config)):
        print(said)
        return 0
    print(f"{plan_line(Blueprint(begun.config))}\nrun directory: {begun.path}", flush=True)
    stop = Stop(args.supervised)
    stop.give(_LEARNER_GRACE_S + _OTHERS_GRACE_S)
    try:
        finished = train(begun, stop, lambda: open_display(begun.title, sys.stdout))
    except ProcessDied as death:
        print(f"{death.output}\n{death}; go on with: {begun.again}", file=sys.stderr)
        return 1
    finally:
        stop.over()
    if not finished:
        print(f"stopped; go on with: {begun.again}")
    else:
        finish(begun.config, begun.path, args.episodes, gif=not args.no_gif)
    return 0


def _begin(args: argparse.Namespace) -> Begun:
    if args.preset is None:
        raise UsageError("train: name a preset or a file; `headrace presets` lists what is there")
    start = [] if args.init_from is None else [f"run.init_from={json.dumps(str(args.init_from.resolve()))}"]
    return begin(args.preset, [*args.overrides, *start], args.run_dir)


def _resume(args: argparse.Namespace) -> Begun:
    if args.run_dir is None:
        raise UsageError("--resume: give the run to go on with, --run-dir D")
    return go_on(args.run_dir, args.overrides, args.new_log)


# --- before: everything is checked, then the directory is claimed, then something is written -----------------------


def begin(
    source: str | Mapping[str, Any], overrides: Sequence[str], path: Path | None = None, watched: bool = True
) -> Begun:
    """A fresh run of a preset, a file or a table: its config in a directory of its own, ``path`` or the next of
    runs/. ``watched``: see :class:`Blueprint`. Raises :class:`UsageError`, and leaves nothing then."""
    config = with_addresses(load(source, overrides))
    runs = place("runs")
    blueprint = _checked(config, watched)
    init_from.check(blueprint)
    name = Path(source).stem if isinstance(source, str) else config.algorithm_label
    run_dir = run_dirs.claim(path) if path else run_dirs.claim_next(name, runs)
    try:
        (run_dir.path / "logs").mkdir(exist_ok=True)
        run_files.write(run_dir.path, blueprint)
    except BaseException as error:
        run_dir.abandon()
        run_dir.close()
        if isinstance(error, OSError):
            raise UsageError(f"run directory {run_dir.path}: {error.strerror}") from error
        raise
    return Begun(config, run_dir)


def go_on(path: Path, overrides: Sequence[str], new_log: bool = False, watched: bool = True) -> Begun:
    """A run that goes on. What is different is kept by its learner, once it does. Raises :class:`UsageError`."""
    before = run_files.stored_config(path)
    run_dir = run_dirs.claim_again(path)
    try:
        config = run_files.stored_config(path, overrides)
        resume.changes(before, config, new_log)
        _checked(config, watched)
        (run_dir.path / "logs").mkdir(exist_ok=True)
    except BaseException:
        run_dir.close()
        raise
    return Begun(config, run_dir, ["--resume", *(["--new-log"] if new_log else [])], overrides)


def _checked(config: Config, watched: bool) -> Blueprint:
    """All that can be known to be wrong beforehand is said now."""
    blueprint = Blueprint(config, watched)
    blueprint.check()
    check_device(config.learner)
    return blueprint


# --- while ---------------------------------------------------------------------------------------------------------


def train(begun: Begun, stop: Callable[[], bool], make_display: Callable[[], Display]) -> bool:
    """Run its processes, shown on a display. Whether it came to its end; False when it was told to stop.

    Raises :class:`ProcessDied`, :class:`UsageError` where a role found something wrong before anything was learnt
    (nothing is left of the run then), and what the display raises. No process is left in any case."""
    config = begun.config
    remove_dead_socket_dirs()
    try:
        with held_socket_dir(used_socket_dir(config.run.id, config.transport.url, config.weights.address)):
            return _train(begun, stop, Screen(config, begun.path, make_display()))
    except UsageError:
        begun.run_dir.abandon()
        raise


def children(begun: Begun) -> list[Child]:
    """The processes of a run: what they are started with is what a person would type for a single role."""
    path, env = begun.path, {**_ONE_THREAD, **begun.env}

    def child(role: str, index: int, *extra: str) -> Child:
        common = ["--config", str(path / "config.toml"), *_set(begun.overrides), "--run-dir", str(path)]
        argv = [sys.executable, "-m", "headrace.launch.cli", role, *common, *extra]
        log = path / "logs" / f"{role}-{index}.log"
        # A learner that died needs a person to look; the others hold nothing that is not elsewhere.
        return Child(f"{role}-{index}", role, argv, log, role != "learner", env, (begun.run_dir.lock,))

    actors = [child("actor", i, "--index", str(i)) for i in range(begun.config.actors.processes)]
    return [child("paramserver", 0), child("learner", 0, *begun.resumed), *actors]


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _train(begun: Begun, stop: Callable[[], bool], screen: Screen) -> bool:
    all_of_them = children(begun)
    goes_on = bool(begun.resumed) and any((begun.path / "checkpoints").glob("ckpt-*"))
    supervisor = Supervisor(
        all_of_them, Metrics("supervisor"), moved_before=goes_on, patience_s=begun.config.weights.down_timeout_s
    )
    others = [c.name for c in all_of_them if c.role != "learner"]
    try:
        supervisor.start()
        while not stop():
            if screen.read():
                supervisor.moved()
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
        screen.close(supervisor)
        supervisor.close()
    return screen.finished
