"""headrace train PRESET --seeds 0:5 [--parallel N]: the same training from several seeds, and what they say together.

    common.toml -> `headrace train` of each seed, N at a time -> seed-K/ -> interquartile mean, interval, one picture

Each seed is a process of its own with a run directory of its own: what happens to one happens to that one. Told to
stop, every run stops as `headrace train` does; `--resume` goes on with what is not done.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch import init_from
from headrace.launch import run_dir as run_dirs
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.child import Child, stop_all
from headrace.launch.config import Config
from headrace.launch.device import check_device
from headrace.launch.finish import solved_at
from headrace.launch.load import load
from headrace.launch.roles import place
from headrace.launch.run_dir import RunDir
from headrace.launch.run_files import ROWS
from headrace.launch.seeds_dir import COMMON, DONE, PICTURE, SeedsDir, is_seeds_dir, open_seeds, read_result, rows_of
from headrace.launch.stopping import Stop
from headrace.observe import plot
from headrace.observe.rows import Tail
from headrace.observe.seeds_table import Progress, open_display
from headrace.observe.statistics import CONFIDENCE

_POLL_S = 0.1
#: What a training may take to stop: its learner writes a checkpoint, its actors finish a fragment.
_GRACE_S = 70.0
_MOST_SEEDS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seeds", type=seeds, metavar="A:B", help="train with run.seed A to B-1, in runs/PRESET-seeds-N/seed-K"
    )
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="with --seeds: so many at a time (1)")
    parser.add_argument("--json", action="store_true", help="with --seeds: print what seeds.json holds")


def seeds(text: str) -> tuple[int, ...]:
    """Seeds of a command line, for argparse: "0:5" is 0 to 4."""
    first, colon, end = text.partition(":")
    if not colon or not first.isdecimal() or not end.isdecimal() or not 0 < int(end) - int(first) <= _MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r} are no seeds; 0:5 are 0, 1, 2, 3 and 4 (up to {_MOST_SEEDS:,})")
    return tuple(range(int(first), int(end)))


def meant(args: argparse.Namespace) -> bool:
    """Whether a command line of `headrace train` is about several seeds. Raises :class:`UsageError` for one that is
    not, and has their options."""
    if args.seeds is not None or (args.resume and args.run_dir is not None and is_seeds_dir(args.run_dir)):
        return True
    if args.json or args.parallel != 1:
        raise UsageError("train: --parallel and --json go with --seeds A:B")
    return False


def run(args: argparse.Namespace) -> int:
    if args.parallel < 1:
        raise UsageError(f"--parallel {args.parallel}: at least 1")
    there, held = _resume(args) if args.resume else _begin(args)
    screen = sys.stderr if args.json else sys.stdout
    print(f"{len(there.seeds)} seeds, {args.parallel} at a time; directory: {there.path}", file=screen, flush=True)
    training = Training(there, held, args)
    stopped = training.run()
    said = there.outcome(training.failed)
    try:
        there.keep(said)
        _draw(there, said["evaluation"])
    except OSError as error:
        print(f"{there.path}: not everything could be written: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(said))
    else:
        print("\n".join(_summary(there, said)))
    if stopped:
        print(f"stopped; go on with: {_again(there.path)}", file=screen)
    elif training.failed:
        failed = ", ".join(map(str, training.failed))
        print(f"seed {failed} failed; try again with: {_again(there.path)}", file=sys.stderr)
    return 1 if training.failed else 0


# --- before ----------------------------------------------------------------------------------------------------------


def _begin(args: argparse.Namespace) -> tuple[SeedsDir, RunDir]:
    """All that can be known to be wrong is said now; then the directory is claimed."""
    if args.preset is None:
        raise UsageError("train: name a preset or a file; `headrace presets` lists what is there")
    if any(override.partition("=")[0].strip() == "run.seed" for override in args.overrides):
        raise UsageError("--set run.seed: the seeds are those of --seeds")
    start = [] if args.init_from is None else [f"run.init_from={json.dumps(str(args.init_from.resolve()))}"]
    config = load(args.preset, [*args.overrides, *start])
    _check_addresses(config, args.parallel)
    blueprint = Blueprint(with_addresses(config))
    blueprint.check()
    check_device(config.learner)
    init_from.check(blueprint)
    name, runs = f"{Path(args.preset).stem}-seeds", place("runs")
    held = run_dirs.claim(args.run_dir) if args.run_dir else run_dirs.claim_next(name, runs)
    there = SeedsDir(held.path, args.seeds, args.episodes)
    try:
        there.begin(config)
    except OSError as error:
        held.abandon()
        raise UsageError(f"{held.path}: {error.strerror}") from error
    return there, held


def _resume(args: argparse.Namespace) -> tuple[SeedsDir, RunDir]:
    """A directory of seeds that goes on, with more of them if it is told so."""
    if args.run_dir is None:
        raise UsageError("--resume: give the seeds to go on with, --run-dir D")
    if args.overrides or args.new_log or args.init_from or args.preset:
        raise UsageError(
            f"--resume: all seeds in {args.run_dir} keep their settings; go on with a single one by --run-dir "
            f"{args.run_dir}/seed-K, or start new ones"
        )
    before = open_seeds(args.run_dir)
    there = SeedsDir(before.path, tuple(sorted({*before.seeds, *(args.seeds or ())})), before.episodes)
    _check_addresses(there.config(), args.parallel)
    return there, run_dirs.claim_again(args.run_dir)


def _check_addresses(config: Config, parallel: int) -> None:
    if parallel > 1 and config.weights.address:
        raise UsageError("--parallel: weights.address is one address, and each run needs its own; leave it out")


def _again(path: Path) -> str:
    return shlex.join(["headrace", "train", "--resume", "--run-dir", str(path)])


# --- while -----------------------------------------------------------------------------------------------------------


class Training:
    """The seeds that are not done, ``parallel`` at a time. ``failed``: seed -> how, of those that ended badly."""

    def __init__(self, there: SeedsDir, held: RunDir, args: argparse.Namespace) -> None:
        self._there, self._held, self._args = there, held, args
        self._config = there.config()
        self._progress = {seed: Progress(seed, DONE if there.done(seed) else "waiting") for seed in there.seeds}
        self._tails = {seed: Tail(there.run_dir(seed) / ROWS) for seed in there.seeds}
        self._waiting = deque(seed for seed in there.seeds if not there.done(seed))
        self._running: dict[int, Child] = {}
        self.failed: dict[int, str] = {}
        self._display = open_display(_title(self._config, there), sys.stderr if args.json else sys.stdout)

    def run(self) -> bool:
        """Train them; whether somebody asked for a stop before all had their turn."""
        stop = Stop()
        for seed in self._there.seeds:
            if self._there.done(seed):
                self._tell_done(seed)
        try:
            while (self._waiting or self._running) and not stop():
                self._turn()
                time.sleep(_POLL_S)
            return bool(self._waiting or self._running)
        finally:
            stop_all(self._running.values(), _GRACE_S)
            self._turn(start=False)
            self._display.close(list(self._progress.values()))
            stop.over()

    def _turn(self, start: bool = True) -> None:
        while start and self._waiting and len(self._running) < self._args.parallel:
            self._start(self._waiting.popleft())
        for seed, child in list(self._running.items()):
            self._progress[seed].add(self._tails[seed].new_rows())
            if (code := child.ended()) is not None:
                del self._running[seed]
                self._ended(seed, child, code, asked=not start)
        self._display.show(list(self._progress.values()))

    def _start(self, seed: int) -> None:
        argv = [sys.executable, "-m", "headrace.launch.cli", "train", *self._words(seed)]
        child = Child(f"seed-{seed}", "train", argv, self._there.log(seed), False, inherit=(self._held.lock,))
        child.start()
        self._running[seed], self._progress[seed].state = child, "running"

    def _words(self, seed: int) -> list[str]:
        """What a person would type for this seed alone."""
        there, run_id = self._there, self._config.run.id
        kept = ["--run-dir", str(there.run_dir(seed)), "--episodes", str(there.episodes)]
        if self._args.no_gif or seed != there.seeds[0]:
            kept.append("--no-gif")
        if there.begun(seed):
            return ["--resume", *kept]
        named = ["--set", f"run.id={run_id}-seed-{seed}"] if run_id else []
        return [str(there.path / COMMON), "--set", f"run.seed={seed}", *named, *kept]

    def _ended(self, seed: int, child: Child, code: int, asked: bool) -> None:
        progress = self._progress[seed]
        if self._there.done(seed):
            progress.state = DONE
            self._tell_done(seed)
        elif asked or code == 0:
            progress.state = "stopped"
        else:
            progress.state = f"failed: {child.last_line()}"
            self.failed[seed] = progress.state
            self._display.tell(f"seed {seed} {progress.state} (exit code {code}; all of it: {child.log})")
        child.close()
        try:
            self._there.keep(self._there.outcome(self.failed))
        except OSError as error:
            self._display.tell(f"{self._there.path}: not everything could be written: {error}")

    def _tell_done(self, seed: int) -> None:
        result = read_result(self._there.run_dir(seed))
        found, took = result["evaluation"], f"{result['env_steps']:,} steps in {result['train_s']:.1f} s"
        if found is not None:
            took = f"greedy {found['mean']:.1f} ± {found['interval95']:.1f}, lowest {min(found['returns']):.1f}; {took}"
        self._display.tell(f"seed {seed}: {took}")


def _title(config: Config, there: SeedsDir) -> str:
    return f"{config.algorithm_label} on {config.task.env}, seeds {there.seeds[0]} to {there.seeds[-1]}"


# --- after -----------------------------------------------------------------------------------------------------------


def _draw(there: SeedsDir, over_seeds: Mapping[str, Any] | None) -> None:
    config, paths = there.config(), there.finished_runs()
    if not paths:
        return
    mark = None
    if over_seeds is not None:
        iqm, low, high = (over_seeds[name] for name in ("iqm", "low", "high"))
        at = max(read_result(path)["env_steps"] for path in paths)
        mark = plot.Evaluation(at, iqm, iqm if low is None else low, iqm if high is None else high)
    name = config.algorithm_label.upper()
    side = plot.Side(name, [rows_of(path) for path in paths], mark)
    title = f"{name} on {config.task.env}"
    plot.plot_sides([side], there.path / PICTURE, title=title, threshold=solved_at(config))


def _summary(there: SeedsDir, said: dict[str, Any]) -> list[str]:
    lines = []
    if (over := said["evaluation"]) is not None:
        interval = "" if over["low"] is None else f" [{over['low']:.1f}, {over['high']:.1f}]"
        lines.append(
            f"interquartile mean {over['iqm']:.1f}{interval} ({CONFIDENCE:.0%} bootstrap interval) over {over['seeds']}"
            f" seeds, {said['episodes']} greedy episodes each; mean {over['mean']:.1f}, lowest seed "
            f"{over['lowest_seed']:.1f}"
        )
    if (there.path / PICTURE).exists():
        lines.append(f"curves: {there.path / PICTURE}")
    return lines
