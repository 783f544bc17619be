"""``headrace setup files|kafka``: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path

from headrace.launch.roles import add_config_arguments

_GROUP_HELP = "numeric group that may read them (default: only the user who runs this may)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make what the roles of a cluster need. What is there already, and good for long enough, stays."
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="files|kafka")
    files = steps.add_parser("files", help="certificates, tokens and passwords, a folder for each role")
    files.add_argument("folder", type=Path, metavar="DIR", help="where the roles' folders are, or shall be")
    files.add_argument("--group", type=int, metavar="GID", help=_GROUP_HELP)
    files.add_argument("--paramserver-name", action="append", metavar="HOST", help="its name for others (paramserver)")
    files.add_argument("--kafka-name", action="append", metavar="HOST", help="the broker's name for others (kafka)")
    files.add_argument("--owner", type=int, metavar="UID", help="who shall own what --own names")
    files.add_argument(
        "--own", type=Path, action="append", default=[], metavar="DIR", help="a run directory to be made"
    )
    kafka = steps.add_parser("kafka", help="users, topics and rights at the broker")
    kafka.add_argument("--config", required=True, metavar="PRESET|FILE", help="the run's configuration")
    add_config_arguments(kafka)
    kafka.add_argument("--admin", required=True, metavar="HOST:PORT", help="a listener whose users may do anything")
    kafka.add_argument("--secrets", required=True, type=Path, metavar="DIR", help="what `setup files` made")
    kafka.add_argument("--timeout-s", type=float, default=60.0, metavar="S", help="for the broker to answer (60)")


def run(args: argparse.Namespace) -> int:
    """Carry out a parsed ``setup`` command. Raises :class:`UsageError`."""
    if args.step == "files":
        from headrace.launch.setup import files  # cryptography is loaded for the command only, not for --help

        names = files.Names(
            paramserver=tuple(args.paramserver_name or ("paramserver",)), kafka=tuple(args.kafka_name or ("kafka",))
        )
        made = files.make(args.folder, names, args.group)
        print(f"{args.folder}: {', '.join(made) if made else 'everything is there already'}")
        for directory in args.own:
            files.hand_over(directory, args.owner)
        return 0
    from headrace.launch.load import load
    from headrace.launch.setup import kafka

    for line in kafka.prepare(load(args.config, args.overrides), args.admin, args.secrets, args.timeout_s):
        print(line, flush=True)
    return 0
