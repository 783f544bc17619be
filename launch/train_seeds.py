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
from pathlib import Path
from typing import Any

from headrace.common.errors import UsageError
from headrace.launch import init_from
from headrace.launch import run_dir as run_dirs
from headrace.launch.build import Blueprint, with_addresses
from headrace.launch.config import Config
from headrace.launch.device import check_device
from headrace.launch.load import load
from headrace.launch.roles import place
from headrace.launch.run_dir import RunDir
from headrace.launch.seeds_dir import PICTURE, SeedsDir, is_seeds_dir, open_seeds
from headrace.launch.seeds_training import Training
from headrace.launch.sides import drawn, read_side
from headrace.launch.solved import solved_at
from headrace.observe import plot
from headrace.observe.statistics import CONFIDENCE

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
    training = Training(there, held.lock, args.parallel, gif=not args.no_gif, screen=screen)
    stopped = training.run()
    said = there.outcome(training.failed)
    try:
        there.keep(said)
        _draw(there)
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


# --- after -----------------------------------------------------------------------------------------------------------


def _draw(there: SeedsDir) -> None:
    if not there.finished_runs():
        return
    config = there.config()
    side = read_side(config.algorithm_label.upper(), there.path)
    title = f"{side.name} on {config.task.env}"
    plot.plot_sides([drawn(side)], there.path / PICTURE, title=title, threshold=solved_at(config))


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
