"""``headrace broker start|stop|status``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace.common.errors import TransportError
from headrace.launch.broker.jars import cache_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``headrace broker``; :func:`run` carries it out."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="start|stop|status")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--data-dir", type=Path, default=cache_dir() / "broker", metavar="D", help="its log and settings (%(default)s)"
    )
    start = actions.add_parser("start", parents=[where], help="start it; returns when it answers")
    start.add_argument("--port", type=int, default=9092, metavar="N", help="0 takes any free one (%(default)s)")
    start.add_argument("--controller-port", type=int, default=0, metavar="N", help="0 takes any free one (%(default)s)")
    start.add_argument("--heap-mb", type=int, default=512, metavar="N", help="Java's heap (%(default)s)")
    start.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help="how long it may take (%(default)s)")
    stop = actions.add_parser("stop", parents=[where], help="end it; its log is kept")
    stop.add_argument("--timeout-s", type=float, default=30.0, metavar="S", help="then it is killed (%(default)s)")
    actions.add_parser("status", parents=[where], help="exit code 0 when it runs, 1 when not")


def run(args: argparse.Namespace) -> int:
    """Carry out a parsed ``broker`` command; returns the exit code. Raises :class:`UsageError`."""
    try:
        return _run(args)
    except TransportError as error:
        print(f"headrace {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    from headrace.launch import broker  # the client library is loaded for the command only, not for --help

    match args.action:
        case "start":
            info = broker.start(args.data_dir, args.port, args.controller_port, args.heap_mb, args.timeout_s)
            how = "is running already" if info.was_running else "is ready"
            print(f"broker {how} at {info.bootstrap} (pid {info.pid}, data in {info.data_dir})")
        case "stop":
            ended = broker.stop(args.data_dir, args.timeout_s)
            print(f"broker of {args.data_dir} {'stopped; its log is kept' if ended else 'was not running'}")
        case "status":
            found = broker.status(args.data_dir)
            if found is None:
                print(f"broker of {args.data_dir} is not running")
                return 1
            print(f"broker is running at {found.bootstrap} (pid {found.pid}, data in {found.data_dir})")
    return 0
