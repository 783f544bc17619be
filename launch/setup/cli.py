"""``headrace setup files|kafka|kubernetes``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.launch.load import load
from headrace.launch.roles import add_config_arguments

if TYPE_CHECKING:
    from headrace.launch.setup.files import Names

_GROUP_HELP = "numeric group that may read them (default: only the user who runs this may)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make what the roles of a cluster need. What is there already, and good for long enough, stays."
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="files|kafka|kubernetes")
    files = steps.add_parser("files", help="certificates, tokens and passwords, a folder for each role")
    files.add_argument("folder", type=Path, metavar="DIR", help="where the roles' folders are, or shall be")
    files.add_argument("--group", type=int, metavar="GID", help=_GROUP_HELP)
    _add_names(files)
    files.add_argument("--owner", type=int, metavar="UID", help="who shall own what --own names")
    files.add_argument(
        "--own", type=Path, action="append", default=[], metavar="DIR", help="a run directory to be made"
    )
    kafka = steps.add_parser("kafka", help="users, topics and rights at the broker")
    _add_broker(kafka, required=True)
    kafka.add_argument("--secrets", required=True, type=Path, metavar="DIR", help="what `setup files` made")
    kubernetes = steps.add_parser("kubernetes", help="both, with the Secrets of a namespace in place of the folders")
    _add_broker(kubernetes, required=False)
    _add_names(kubernetes)


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--paramserver-name", action="append", metavar="HOST", help="its name for others (paramserver)")
    parser.add_argument("--kafka-name", action="append", metavar="HOST", help="the broker's name for others (kafka)")


def _add_broker(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--config", required=True, metavar="PRESET|FILE", help="the run's configuration")
    add_config_arguments(parser)
    anyone = "a listener whose users may do anything" + (
        "" if required else " (default: Kafka is looked after by others)"
    )
    parser.add_argument("--admin", required=required, default="", metavar="HOST:PORT", help=anyone)
    parser.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help="for the broker to answer (60)")


def run(args: argparse.Namespace) -> int:
    """Carry out a parsed ``setup`` command. Raises :class:`UsageError` and :class:`TransportError`."""
    match args.step:
        case "files":
            _make_files(args)
        case "kafka":
            from headrace.launch.setup import kafka

            config = load(args.config, args.overrides)
            _say(kafka.prepare(config, args.admin, args.secrets, args.timeout_s))
        case "kubernetes":
            from headrace.launch.setup import kubernetes

            config = load(args.config, args.overrides)
            with tempfile.TemporaryDirectory() as folder:
                where, names, secrets = Path(folder), _names(args), kubernetes.Secrets()
                _say(kubernetes.prepare(config, args.admin, where, names, args.timeout_s, secrets))
    return 0


def _make_files(args: argparse.Namespace) -> None:
    from headrace.launch.setup import files  # cryptography is loaded for the command only, not for --help

    made = files.make(args.folder, _names(args), args.group)
    print(f"{args.folder}: {', '.join(made) if made else 'everything is there already'}")
    for directory in args.own:
        files.hand_over(directory, args.owner)


def _names(args: argparse.Namespace) -> Names:
    from headrace.launch.setup.files import Names

    return Names(tuple(args.paramserver_name or ("paramserver",)), tuple(args.kafka_name or ("kafka",)))


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)
