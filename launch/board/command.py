"""headrace board [RUNS]: a page for the runs of a folder, in the browser of this machine.

Runs that it starts are `headrace train` like any other, and go on when the board ends.
"""

from __future__ import annotations

import argparse
import importlib.util

from headrace.common.errors import UsageError
from headrace.launch.roles import place, port


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="?", type=place, default=place("runs"), metavar="RUNS", help="the folder of runs (default: runs)"
    )
    parser.add_argument(
        "--port",
        type=port,
        metavar="PORT",
        help="where it listens on 127.0.0.1 (default 8260, or any while that is taken)",
    )


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("nicegui") is None:
        raise UsageError("the board needs its extra: pip install 'headrace[board]'")
    if args.runs.exists() and not args.runs.is_dir():
        raise UsageError(f"{args.runs} is no directory; name the folder in which runs are kept")
    from headrace.launch.board.folder import Folder
    from headrace.launch.board.server import serve

    serve(
        Folder(args.runs),
        args.port,
        lambda url: print(f"{args.runs} on {url}\nCtrl-C ends the board, not the runs.", flush=True),
    )
    return 0
