"""headrace train: all roles on this machine as real processes, watched, shown, and evaluated at the end.

config -> run directory -> paramserver + learner + actors -> rows on the screen -> evaluation, curve, GIF
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.launch import config as configuration
from headrace.launch import init_from, resume, run_files
from headrace.launch.build import Blueprint, ensure_socket_dir, plan, socket_dir, with_addresses
from headrace.launch.config import Config
from headrace.launch.finish import finish
from headrace.launch.roles import add_config_arguments
from headrace.launch.stopping import Stop
from headrace.launch.supervisor import Child, ProcessDied, Supervisor
from headrace.observe.rows import Tail
from headrace.observe.table import Notes, open_display
from headrace.observe.watch import Watch

_POLL_S = 0.25
#: Grace periods: the learner writes a checkpoint, actors finish a fragment and flush.
_LEARNER_GRACE_S, _OTHERS_GRACE_S = 60.0, 5.0
#: One thread per process: many processes share few cores, and results do not depend on the number of cores.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET|FILE", help="what to train (see `headrace presets`)")
    add_config_arguments(parser)
    parser.add_argument("--run-dir", type=Path, metavar="D", help="where everything is kept (default: runs/PRESET-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    parser.add_argument("--new-log", action="store_true", help=resume.NEW_LOG_HELP)
    parser.add_argument("--init-from", type=Path, metavar="RUN", help="a new run from the parameters of this one")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="greedy episodes at the end (0: none)")
    parser.add_argument("--no-gif", action="store_true", help="no GIF at the end")


def run(args: argparse.Namespace) -> int:
    config, run_dir = _prepare(args)
    if args.resume and (said := resume.finished(run_dir, config)):
        print(said)
        return 0
    ensure_socket_dir(config)
    _say_plan(Blueprint(config), run_dir)
    overrides = args.overrides if args.resume else []  # a new run has them in its config.toml
    again = shlex.join(["headrace", "train", "--resume", "--run-dir", str(run_dir), *_set(overrides)])
    try:
        finished = _train(config, run_dir, _learner_options(args), overrides)
    except ProcessDied as death:
        print(f"{death.output}\n{death}; go on with: {again}", file=sys.stderr)
        return 1
    if not finished:
        print(f"stopped; go on with: {again}")
    else:
        finish(config, run_dir, args.episodes, gif=not args.no_gif)
    return 0


# --- before --------------------------------------------------------------------------------------------------------


def _prepare(args: argparse.Namespace) -> tuple[Config, Path]:
    """The resolved config in its run directory: a fresh one, or the one of the run that goes on. All that can be wrong
    is found before anything is written."""
    if args.resume:
        if args.run_dir is None:
            raise UsageError("--resume: give the run to go on with, --run-dir D")
        config = run_files.stored_config(args.run_dir, args.overrides)
        resume.changes(run_files.stored_config(args.run_dir), config, args.new_log)
        Blueprint(config).check()
        (args.run_dir / "logs").mkdir(exist_ok=True)
        return config, args.run_dir  # what is different is kept by the learner, once it goes on
    if args.preset is None:
        raise UsageError("train: name a preset or a file; `headrace presets` lists what is there")
    start = [] if args.init_from is None else [f"run.init_from={json.dumps(str(args.init_from.resolve()))}"]
    config = with_addresses(configuration.load(args.preset, [*args.overrides, *start]))
    blueprint = Blueprint(config)
    blueprint.check()
    init_from.check(blueprint)
    run_dir: Path = args.run_dir or _next_run_dir(Path(args.preset).stem)
    if (run_dir / "config.toml").exists():
        raise UsageError(f"{run_dir} already holds a run; go on with it by --resume, or name another directory")
    (run_dir / "logs").mkdir(parents=True, exist_ok=True)
    run_files.write(run_dir, blueprint)
    return config, run_dir


def _learner_options(args: argparse.Namespace) -> list[str]:
    return [f"--{option}" for option, wanted in (("resume", args.resume), ("new-log", args.new_log)) if wanted]


def _next_run_dir(name: str) -> Path:
    root = Path("runs")
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"


def _say_plan(blueprint: Blueprint, run_dir: Path) -> None:
    planned, config = plan(blueprint), blueprint.config
    print(
        f"{config.algorithm['name']} on {config.task.env}: {config.run.total_steps:,} steps, "
        f"{planned['environments']} environments in {config.actors.processes} actor processes, "
        f"{planned['steps_per_version_at_most']:,} steps a version, at most {config.learner.max_staleness} stale, "
        f"seed {config.run.seed}\nrun directory: {run_dir}",
        flush=True,
    )


# --- while ---------------------------------------------------------------------------------------------------------


def children(config: Config, run_dir: Path, for_learner: Sequence[str], overrides: Sequence[str]) -> list[Child]:
    """The processes of a run: what they are started with is what a person would type for a single role."""

    def child(role: str, index: int, restart: bool, *extra: str) -> Child:
        common = ["--config", str(run_dir / "config.toml"), *_set(overrides), "--run-dir", str(run_dir), "--supervised"]
        argv = [sys.executable, "-m", "headrace.launch.cli", role, *common, *extra]
        log = run_dir / "logs" / f"{role}-{index}.log"
        return Child(f"{role}-{index}", role, argv, log, restart, _ONE_THREAD)

    actors = [child("actor", i, True, "--index", str(i)) for i in range(config.actors.processes)]
    learner = child("learner", 0, False, *for_learner)
    return [child("paramserver", 0, False), learner, *actors]


def _set(overrides: Sequence[str]) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def _train(config: Config, run_dir: Path, for_learner: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether it came to its end; False when it was told to stop. Raises :class:`ProcessDied`."""
    stop, metrics = Stop(), Metrics("supervisor")
    supervisor = Supervisor(children(config, run_dir, for_learner, overrides), metrics)
    tail = Tail(run_dir / "metrics.jsonl")
    display = open_display(f"{config.algorithm['name']} on {config.task.env}", sys.stdout)
    watch = Watch(run_dir)
    others = [c.name for c in supervisor.children if c.role != "learner"]

    def show() -> None:
        rows = tail.new_rows()
        told = tuple(supervisor.messages())
        display.show(rows, Notes(bottleneck=watch.sentence(), restarts=supervisor.restarts, messages=told))

    tail.new_rows()  # of a run that goes on: shown the last time
    try:
        supervisor.start()
        while "learner-0" not in supervisor.poll() and not stop():
            show()
            time.sleep(_POLL_S)
        supervisor.end("learner-0", _LEARNER_GRACE_S)
        show()
    finally:
        supervisor.stop(["learner-0"], _LEARNER_GRACE_S)
        supervisor.stop(others, _OTHERS_GRACE_S)
        display.close()
        shutil.rmtree(socket_dir(config.run.id), ignore_errors=True)
    return not stop()
