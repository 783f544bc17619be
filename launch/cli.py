"""The command line. Every command is a module with ``add_arguments(parser)`` and ``run(args) -> exit code``, imported
only when it is asked for: ``headrace --help`` answers at once.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration (one line says what and where).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from headrace.common.errors import HeadraceError, UsageError
from headrace.launch import streams

#: command -> (module under headrace, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "train": ("launch.train", "train on this machine: all roles, live table, curve, GIF"),
    "evaluate": ("launch.evaluate", "greedy episodes of a trained agent on unseen seeds"),
    "compare": ("launch.compare", "runs, or seeds of them: what differs, curves, intervals, agents side by side"),
    "report": ("launch.report.cli", "figures of a config over its seeds beside their targets: table, JSON, HTML page"),
    "config": ("launch.config_command", "every setting: its value in a preset, what it may be, what it is for"),
    "presets": ("launch.presets_command", "what can be trained out of the box"),
    "board": ("launch.board.command", "a page for runs in the browser: curves, evaluations, videos, start and stop"),
    "status": ("observe.status", "how a run is doing, and what its bottleneck is"),
    "health": ("observe.health", "whether a role's own loop turns: the health command of containers"),
    "doctor": ("observe.doctor", "check this machine, the broker, the parameter server, the versions"),
    "track": ("launch.track", "mirror a run to an experiment tracker: Weights & Biases, MLflow"),
    "export": ("launch.export", "a run's policy as one ONNX file"),
    "broker": ("launch.broker.cli", "a real one-node Apache Kafka without Docker: start, stop, status"),
    "actor": ("launch.run_actor", "one role: collect trajectories"),
    "learner": ("launch.run_learner", "one role: train"),
    "evaluator": ("launch.run_evaluator", "one role: greedy episodes with the newest weights"),
    "paramserver": ("launch.run_paramserver", "one role: hand out weights and leases"),
    "setup": ("launch.setup.cli", "what a cluster needs first: certificates, tokens, users, topics, rights"),
}

#: How long threads that others left running may take to end by themselves.
_THREADS_S = 2.0


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}", file=sys.stderr)
        raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(
        prog="headrace", description="Distributed actor-learner reinforcement learning.", allow_abbrev=False
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    for name, (module, line) in COMMANDS.items():
        command = commands.add_parser(name, help=line, description=line, allow_abbrev=False)
        if name == wanted:
            import_module(f"headrace.{module}").add_arguments(command)
    args, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands.choices.get(args.command, parser).error(_unknown_option(unknown[0], arguments))
    if args.version:
        from importlib.metadata import version

        print(f"headrace {version('headrace')}")
        return 0
    if args.command is None:
        parser.print_help()
        return 2
    if getattr(args, "supervised", None) is not None:
        args.supervised = import_module("headrace.launch.lifeline").Attached(args.supervised)
    if getattr(args, "log_format", "text") == "json":
        import_module("headrace.launch.json_logs").begin(args.command)
    try:
        code: int = import_module(f"headrace.{COMMANDS[args.command][0]}").run(args)
        return code
    except HeadraceError as error:
        print(f"headrace {args.command}: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        return 1


def _unknown_option(word: str, arguments: Sequence[str]) -> str:
    """What to say of a word nobody knows. A flag that is called like a key of the config was meant as one."""
    flag, equals, value = word.partition("=")
    keys = import_module("headrace.launch.settings").named(flag.lstrip("-")) if flag.startswith("--") else []
    if not keys:
        return f"unrecognized arguments: {word}"
    if not equals:
        value = next(iter(arguments[arguments.index(word) + 1 :]), "VALUE")
    return f"{flag} is no option; say {' or '.join(f'--set {key}={value}' for key in keys)}"


def console() -> NoReturn:
    """The command itself. Python waits for every thread at the end, and no signal would end that waiting: one that an
    environment leaves running is given up after a moment."""
    streams.mend()
    code = main()
    threading.Thread(target=_leave, args=(code,), name="leave", daemon=True).start()
    sys.exit(code)


def _leave(code: int) -> None:
    time.sleep(_THREADS_S)
    left = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if left:
        print(f"headrace: not waiting for what an environment left running: {', '.join(left)}", file=sys.stderr)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    console()
