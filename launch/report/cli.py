"""headrace report RUN...: a config's figures beside their targets, over its seeds (docs/report.md).

    headrace report runs/cartpole-ppo-1 runs/cartpole-ppo-2 runs/cartpole-ppo-3
    headrace report runs/cartpole-ppo-seeds-1 --adapt 'task.kwargs={sutton_barto_reward=true}' --json

A table in the terminal (or JSON), and one HTML page.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.common import durable
from headrace.common.errors import UsageError
from headrace.launch.config import Config
from headrace.launch.report import runs
from headrace.launch.report.adapt import Change, adapt, changed
from headrace.launch.report.curve import read_seed
from headrace.launch.report.greedy import FLOOR_EPISODES, Greedy
from headrace.launch.roles import place
from headrace.launch.run_files import RESULT
from headrace.launch.solved import solved_at
from headrace.learner.checkpoint_reader import read_json
from headrace.observe.report import table
from headrace.observe.report.findings import Findings

#: Twenty times the target: enough to see by how much it is missed.
_BUDGET_STEPS = 20_000
_PRIVATE = ("transport", "weights")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=place, metavar="RUN", help="run directories of one config, or a folder of seed-K/"
    )
    parser.add_argument(
        "--target", type=float, metavar="R", help="the target return (default: where the task counts as solved)"
    )
    parser.add_argument(
        "--floor", type=float, metavar="R", help="the return that counts as 0 (default: a random policy's)"
    )
    parser.add_argument(
        "--episodes", type=int, default=20, metavar="N", help="greedy episodes of a snapshot (default 20)"
    )
    parser.add_argument("--snapshots", action="store_true", help="judge by snapshots, though there are evaluations")
    parser.add_argument(
        "--adapt", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="change the environment so, go on training in it, and count the steps until the agent is back",
    )  # fmt: skip
    parser.add_argument(
        "--adapt-steps", type=int, default=_BUDGET_STEPS, metavar="N", help="steps to train in it (default 20000)"
    )
    parser.add_argument(
        "--adapt-share", type=float, metavar="S", help="back at this share of what it had (default: at the target)"
    )
    parser.add_argument("--html", type=place, metavar="F", help="the page (default: report.html in the first RUN)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    _check(args)
    found = runs.found(args.runs)
    config = found[0][1]
    target, target_from = _target(args.target, config)
    greedy = [Greedy(own, run_dir, args.episodes) for run_dir, own in found]
    floor, floor_from = _floor(args.floor, greedy[0])
    if not floor < target:
        raise UsageError(f"report: the floor {floor:g} is not below the target {target:g}; give --floor or --target")
    change = Change(tuple(args.adapt), args.adapt_steps, target, floor, args.adapt_share)
    if args.adapt:
        for run_dir, own in found:
            changed(run_dir, own, change)  # what is wrong is said before anything is played or trained
    seeds = [read_seed(own, run_dir, g, args.snapshots) for (run_dir, own), g in zip(found, greedy, strict=True)]
    adapted = [adapt(run_dir, own, change, args.episodes) for run_dir, own in found] if args.adapt else []
    share = args.adapt_share
    findings = Findings(
        config.task.env, config.algorithm_label.upper(), target, target_from, floor, floor_from, args.episodes,
        tuple(seeds), change.said, "the target" if share is None else f"{share:g} of what it had over the floor",
        tuple(adapted), _shown(config), _made_by(found[0][0]),
    )  # fmt: skip
    page = args.html or args.runs[0] / "report.html"
    _write(findings, page)
    if args.json:
        print(json.dumps({**findings.to_json(), "html": str(page)}, indent=2))
    else:
        table.show(findings, sys.stdout)
        print(f"page: {page}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.episodes < 1 or args.adapt_steps < 1:
        raise UsageError("report: --episodes and --adapt-steps are at least 1")
    for name, value in (("--target", args.target), ("--floor", args.floor)):
        if value is not None and not math.isfinite(value):
            raise UsageError(f"report: {name} {value}: a number")
    if args.adapt_share is not None and not 0 < args.adapt_share <= 1:
        raise UsageError(f"report: --adapt-share {args.adapt_share:g}: more than 0 and at most 1")
    if args.adapt_share is not None and not args.adapt:
        raise UsageError("report: --adapt-share says when an agent is back from the change of --adapt; give one")
    if args.html is not None and not args.html.parent.is_dir():
        raise UsageError(f"--html {args.html}: name a file in a directory that is there")


def _target(given: float | None, config: Config) -> tuple[float, str]:
    if given is not None:
        return given, "given by --target"
    solved = solved_at(config)
    if solved is None:
        raise UsageError(
            f"report: nothing says at which return {config.task.env} counts as solved (task.solved, or what Gymnasium "
            "has registered); give it by --target R"
        )
    return (
        solved,
        "task.solved" if config.task.solved is not None else f"{config.task.env}'s reward_threshold in Gymnasium",
    )


def _floor(given: float | None, greedy: Greedy) -> tuple[float, str]:
    if given is not None:
        return given, "given by --floor"
    return greedy.random(), f"mean return of uniformly random actions, {FLOOR_EPISODES} episodes"


def _shown(config: Config) -> dict[str, Any]:
    """The settings on the page. Addresses and places of tokens stay in config.toml, which its owner alone reads."""
    return {k: value for k, value in runs.settings(config).items() if k.partition(".")[0] not in _PRIVATE}


def _made_by(run_dir: Path) -> Mapping[str, str]:
    """What the run's result says it was made by, as far as it does."""
    result: Any = read_json(run_dir / RESULT) or {}
    versions, said = result.get("versions"), {}
    if isinstance(versions, dict):
        said = {name: str(versions[name]) for name in ("headrace", "torch", "gymnasium") if name in versions}
    if isinstance(result.get("commit"), str):
        said["commit"] = result["commit"][:12]
    return said


def _write(findings: Findings, page: Path) -> None:
    from headrace.observe.report.page import render

    try:
        durable.replace_file(page, render(findings).encode())
    except OSError as error:
        raise UsageError(f"{page}: {error.strerror}; name a file that can be written by --html") from error
