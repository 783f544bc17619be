"""headrace train: all roles on this machine as real processes, watched, shown, and evaluated at the end.

    config, checked -> run directory -> paramserver + learner + actors -> rows on the screen -> evaluation, curve, GIF
    '--------- begun.py ------------'    '--------------- train ----------------'   '-------- finish.py -------'
                                         and beside them, from the first version on, an evaluator

From Python (launch/background.py) a run is begun, trained and finished by the same three.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.launch import resume, train_seeds
from headrace.launch.begun import Begun, begin, go_on
from headrace.launch.build import Blueprint, plan_line
from headrace.launch.children import beside, children
from headrace.launch.finish import finish
from headrace.launch.roles import add_config_arguments, count, place
from headrace.launch.screen import Screen
from headrace.launch.socket_dir import held_socket_dir, remove_dead_socket_dirs, used_socket_dir
from headrace.launch.stopping import Stop
from headrace.launch.supervisor import ProcessDied, Supervisor
from headrace.observe.table import Display, open_display

_POLL_S = 0.25
#: Grace periods: the learner writes a checkpoint, actors finish a fragment and flush.
_LEARNER_GRACE_S, _OTHERS_GRACE_S = 60.0, 5.0
#: A tracker sends what is left. (MLflow may be making its database, which it does not survive being killed at.)
_TRACKER_GRACE_S = 60.0
#: What the run does not need starts so long after the first version: the start of the others is over, and a run that
#: takes no longer is spared.
_BESIDE_AFTER_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("preset", nargs="?", metavar="PRESET|FILE", help="what to train (see `headrace presets`)")
    add_config_arguments(parser)
    parser.add_argument("--run-dir", type=place, metavar="D", help="where everything is kept (default: runs/PRESET-N)")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run-dir")
    parser.add_argument("--new-log", action="store_true", help=resume.NEW_LOG_HELP)
    parser.add_argument("--init-from", type=Path, metavar="RUN", help="a new run from the parameters of this one")
    parser.add_argument("--episodes", type=count, default=20, metavar="N", help="greedy episodes at the end (0: none)")
    parser.add_argument("--no-gif", action="store_true", help="no GIF at the end")
    train_seeds.add_arguments(parser)
    parser.add_argument("--supervised", type=int, metavar="FD", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    if train_seeds.meant(args):
        return train_seeds.run(args)
    begun = _resume(args) if args.resume else _begin(args)
    if begun.resumed and (said := resume.finished(begun.path, begun.config)):
        print(said)
        return 0
    print(f"{plan_line(Blueprint(begun.config))}\nrun directory: {begun.path}", flush=True)
    stop = Stop(args.supervised)
    stop.give(_LEARNER_GRACE_S + _OTHERS_GRACE_S + (_TRACKER_GRACE_S if begun.config.run.trackers else 0.0))
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


def _train(begun: Begun, stop: Callable[[], bool], screen: Screen) -> bool:
    config, all_of_them, waiting = begun.config, children(begun), beside(begun)
    goes_on = bool(begun.resumed) and any((begun.path / "checkpoints").glob("ckpt-*"))
    supervisor = Supervisor(
        all_of_them, Metrics("supervisor"), moved_before=goes_on, patience_s=config.weights.down_timeout_s
    )
    others = [c.name for c in (*all_of_them, *waiting) if c.role not in ("learner", "tracker")]
    try:
        supervisor.start(stop)
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
    return screen.finished or screen.solved
