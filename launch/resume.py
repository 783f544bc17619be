"""Going on with a run: what may be different from before, and what has to be a new run.

A run keeps its name, its seed, its task, its network and its replay buffer: its checkpoint and its curve stand for
those. All else may change with ``--resume --set`` and is kept in the run's history. Another task, or more training in a
run of its own, starts from a run's parameters by ``train --init-from`` (launch/init_from.py).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from headrace.common.errors import LogLost, UsageError
from headrace.launch.config import Config
from headrace.launch.result import SOLVED
from headrace.launch.run_files import RESULT, ROWS, Change
from headrace.learner.checkpoint_reader import Checkpoint, read_json
from headrace.observe.rows import last_row

NEW_LOG_HELP = "with --resume: the log is lost, or another one: drop the positions in it and begin with what is there"

#: Settings (or sections of them) that a run cannot change: whose checkpoint it would be, of what, or of which shape.
FIXED = ("run.id", "run.seed", "run.init_from", "task.env", "task.kwargs", "algorithm.name", "algorithm.network",
         "algorithm.network_kwargs", "algorithm.hidden", "algorithm.layer_norm", "algorithm.activation",
         "algorithm.memory", "algorithm.memory_width", "algorithm.frame_stack", "algorithm.dueling",
         "algorithm.capacity", "algorithm.priority_alpha")  # fmt: skip
_log = logging.getLogger("headrace.learner")


def changes(before: Config, after: Config, new_log: bool = False) -> list[Change]:
    """What is set differently. Raises :class:`UsageError` for what a run cannot change."""
    old, new = before.flat(), after.flat()
    found = [Change(k, old.get(k), new.get(k)) for k in sorted({**old, **new}) if old.get(k) != new.get(k)]
    for change in found:
        if any(change.key == fixed or change.key.startswith(f"{fixed}.") for fixed in FIXED):
            raise UsageError(
                f"--resume: {change.key} was {change.former!r} and cannot become {change.new!r}: a run keeps its name, "
                "seed, task, network and replay buffer; start a new run from its parameters by `headrace train PRESET "
                "--set ... --init-from RUN`"
            )
    if not new_log and _which_log(before.transport.url) != _which_log(after.transport.url):
        raise UsageError(
            f"--resume: transport.url was {before.transport.url} and the positions of the checkpoint are of that log; "
            f"add --new-log to begin with {after.transport.url}"
        )
    return found


def finished(run_dir: Path, config: Config) -> str:
    """That the run came to its end, and how to go on, in a line; "" where there is something left to do."""
    result = read_json(run_dir / RESULT, env_steps=int)
    if result is not None and result.get("ended_by") == SOLVED and config.run.stop_when_solved is not False:
        return (
            f"{run_dir} is finished: solved after {result['env_steps']:,} steps; to go on all the same, resume it with "
            "--set run.stop_when_solved=false"
        )
    if result is None or result["env_steps"] < config.run.total_steps:
        return ""
    return (
        f"{run_dir} is finished: {result['env_steps']:,} of {config.run.total_steps:,} steps; "
        "to go on beyond them, resume it with --set run.total_steps=MORE"
    )


def with_new_log(saved: Checkpoint, run_dir: Path, config: Config) -> tuple[Checkpoint, Change]:
    """The checkpoint without its positions in a log that is lost, and what that costs, for the history.

    Known is what was trained on since the checkpoint and would have been read again, and how many leases were out when
    it was made: as many fragments may have been on their way. How many followed them, nobody can tell.
    """
    last, info, url = last_row(run_dir / ROWS), saved.info, config.transport.url
    again = max(0, last["env_steps"] - info["counters"]["env_steps"]) if last is not None else 0
    leases_out = info["issued"] - sum(end - first for first, end in info["spent"])
    cost = {
        "positions": info["positions"],
        "env_steps_lost_at_least": again,
        "leases_out_at_the_checkpoint": leases_out,
        "records_lost": "unknown",
    }
    _log.warning(
        "learner: --new-log: reads %s from its oldest record on; lost with the old log: what followed %s there, an "
        "unknown number of records; %d steps of it were trained on after the checkpoint, at which %d leases were out",
        url, info["positions"] or "the checkpoint", again, leases_out,
    )  # fmt: skip
    begin = {"positions": {}, "examined": {}, "log_id": ""}
    return replace(saved, info={**info, **begin}), Change("log", cost, url)


@contextlib.contextmanager
def naming_new_log() -> Iterator[None]:
    """A log that is lost is no end of the run: its error says how to go on."""
    try:
        yield
    except LogLost as error:
        raise LogLost(f"{error}; the checkpoint is whole: go on with a new log by --resume --new-log") from error


def _which_log(url: str) -> tuple[str, str]:
    """Which log an address means: a topic may move to other brokers; local:// keeps none."""
    parts = urlsplit(url)
    return (parts.scheme, "" if parts.scheme == "local" else parts.path)
