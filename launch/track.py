"""headrace track RUN --to wandb: mirror a run to an experiment tracker, while it goes on or afterwards.

metrics.jsonl, evaluations.jsonl, result.json -> lines not sent before -> tracker

A process of its own, under `headrace train` at a low priority: a tracker that is slow, away or broken costs the run
nothing. What was sent is remembered in RUN/trackers/, so it may be started again, and resumed with the run. `headrace
train` starts one for each of run.trackers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from headrace.launch.allowance import step_back
from headrace.launch.roles import place
from headrace.launch.run_files import RESULT, ROWS, stored_config
from headrace.launch.stopping import Stop
from headrace.learner.checkpoint_reader import read_json
from headrace.observe import evaluations
from headrace.observe.evaluations import EvaluationsTail
from headrace.observe.rows import Tail
from headrace.observe.scalars import evaluation_scalars, scalars
from headrace.observe.trackers import TRACKERS, Tracker, open_tracker, translated

_LOOK_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", type=place, metavar="RUN", help="a run directory")
    parser.add_argument("--to", required=True, choices=sorted(TRACKERS), help="the tracker")
    parser.add_argument("--follow", action="store_true", help="go on until told to stop")
    parser.add_argument("--supervised", type=int, metavar="FD", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    config, stop = stored_config(args.run_dir), Stop(args.supervised)
    if args.supervised is not None:
        step_back()
    settings = {k: v for k, v in config.in_full().flat().items() if not k.startswith("weights.")}
    with translated(args.to):
        tracker = open_tracker(args.to, args.run_dir.name, config.run.id, settings, args.run_dir)
        mirror = Mirror(args.run_dir, args.to, tracker)
        while True:
            last = not args.follow or stop()
            mirror.send()
            if last:
                break
            time.sleep(_LOOK_S)
        mirror.send_result()
        tracker.close()
    return 0


class Mirror:
    """Sends each line once; again only where it was killed between sending and remembering."""

    def __init__(self, run_dir: Path, name: str, tracker: Tracker) -> None:
        self._tracker, self._result = tracker, run_dir / RESULT
        self._rows, self._evaluations = Tail(run_dir / ROWS), EvaluationsTail(run_dir / evaluations.FILE)
        self._memory = run_dir / "trackers" / f"{name}.json"
        self._sent = read_json(self._memory, rows=int, evaluations=int) or {"rows": 0, "evaluations": 0}
        self._skip = dict(self._sent)

    def send(self) -> None:
        for row in self._new("rows", self._rows.new_rows()):
            self._tracker.log(row["env_steps"], {"time_s": row["time_s"], **dict(scalars(row))})
        for found in self._new("evaluations", self._evaluations.new()):
            if found.get("env_steps") is not None:
                self._tracker.log(found["env_steps"], dict(evaluation_scalars(found)))
        self._remember()

    def send_result(self) -> None:
        """The evaluation at the end, once there is one."""
        result = read_json(self._result, env_steps=int)
        if result is None or not result.get("evaluation") or self._sent.get("result") == result["env_steps"]:
            return
        values = {name.replace("evaluation/", "final/"): v for name, v in evaluation_scalars(result["evaluation"])}
        self._tracker.log(result["env_steps"], values)
        self._sent["result"] = result["env_steps"]
        self._remember()

    def _new(self, kind: str, lines: list[Any]) -> list[Any]:
        skipped = min(len(lines), self._skip[kind])
        self._skip[kind] -= skipped
        self._sent[kind] += len(lines) - skipped
        return lines[skipped:]

    def _remember(self) -> None:
        self._memory.parent.mkdir(exist_ok=True)
        temporary = self._memory.with_name(f".{self._memory.name}.tmp")
        temporary.write_text(json.dumps(self._sent))
        os.replace(temporary, self._memory)
