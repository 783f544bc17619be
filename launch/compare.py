"""headrace compare A B: two configs over the same seeds, on the return of the environment itself.

    headrace compare lunarlander-ppo lunarlander-shaped --seeds 3 --dir runs/shaping

One run a side and seed, one after the other; then curves of the training return (mean and range over seeds), greedy
evaluations as JSON, and the first seeds' agents side by side in one GIF.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.common.errors import HeadraceError, UsageError
from headrace.launch.finish import solved_at
from headrace.launch.load import load
from headrace.launch.roles import add_config_arguments, place
from headrace.launch.run_files import RESULT, ROWS
from headrace.observe import plot
from headrace.observe.rows import read_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("presets", nargs=2, metavar="PRESET|FILE", help="the two sides")
    add_config_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="run.seed 0 to N-1 (default 3)")
    parser.add_argument("--dir", type=place, required=True, metavar="D", help="where runs and pictures are kept")
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="greedy episodes of each (default 100)")
    parser.add_argument("--json", action="store_true", help="print what compare.json holds")


def run(args: argparse.Namespace) -> int:
    if args.seeds < 1 or args.episodes < 1:
        raise UsageError("compare: --seeds and --episodes are at least 1")
    if args.dir.exists():
        raise UsageError(f"--dir {args.dir}: is there already; name a new one")
    names = [Path(preset).stem for preset in args.presets]
    if names[0] == names[1]:
        raise UsageError(f"compare: both sides are called {names[0]!r}")
    configs = [load(preset, args.overrides) for preset in args.presets]  # what is wrong is said before anything runs
    if configs[0].task.env != configs[1].task.env:
        raise UsageError(f"compare: {configs[0].task.env} and {configs[1].task.env} have no return in common")
    args.dir.mkdir(parents=True)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(args.seeds):
        for name, preset in zip(names, args.presets, strict=True):
            found[name].append(_train(args, preset, args.dir / f"{name}-{seed}", seed))
    (args.dir / "compare.json").write_text(json.dumps(found, indent=2) + "\n")
    curves = {name: [read_rows(args.dir / f"{name}-{s}" / ROWS) for s in range(args.seeds)] for name in names}
    title = f"{configs[0].task.env}, the environment's own return, {args.seeds} seeds"
    plot.plot_sides(curves, args.dir / "compare.png", title=title, threshold=solved_at(configs[0]))
    _side_by_side([args.dir / f"{name}-0" / "final.gif" for name in names], args.dir / "compare.gif")
    _tell(found, args)
    return 0


def _train(args: argparse.Namespace, preset: str, run_dir: Path, seed: int) -> dict[str, Any]:
    """One training by the command that a person would type; what its result says."""
    words = [word for override in [*args.overrides, f"run.seed={seed}"] for word in ("--set", override)]
    kept = ["--run-dir", str(run_dir), "--episodes", str(args.episodes), *([] if seed == 0 else ["--no-gif"])]
    argv = [sys.executable, "-m", "headrace.launch.cli", "train", preset, *words, *kept]
    done = subprocess.run(argv, stdout=sys.stderr if args.json else None, check=False)
    if done.returncode:
        raise HeadraceError(f"compare: the training in {run_dir} ended with exit code {done.returncode}")
    result = json.loads((run_dir / RESULT).read_text())
    return {"seed": seed, "mean": result["evaluation"]["mean"], "lowest": min(result["evaluation"]["returns"]),
            "train_s": result["train_s"], "env_steps": result["env_steps"]}  # fmt: skip


def _side_by_side(gifs: Sequence[Path], path: Path) -> None:
    """Both agents in one picture, each until its episode ends. Nothing where an environment cannot be drawn."""
    from PIL import Image, ImageSequence

    if not all(gif.exists() for gif in gifs):
        return
    sides = [[frame.convert("RGB") for frame in ImageSequence.Iterator(Image.open(gif))] for gif in gifs]
    size = (sum(side[0].width for side in sides), max(side[0].height for side in sides))
    frames = []
    for k in range(max(map(len, sides))):
        frame, left = Image.new("RGB", size, "white"), 0
        for side in sides:
            frame.paste(side[min(k, len(side) - 1)], (left, 0))
            left += side[0].width
        frames.append(frame)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40, loop=0, optimize=True)


def _tell(found: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps(found))
        return
    for name, results in found.items():
        means = sorted(result["mean"] for result in results)
        print(f"{name}: greedy {sum(means) / len(means):.1f} over {len(means)} seeds (lowest seed {means[0]:.1f}, "
              f"lowest episode {min(result['lowest'] for result in results):.1f})")  # fmt: skip
    print(f"curves: {args.dir / 'compare.png'}")
