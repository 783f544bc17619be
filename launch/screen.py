"""What is seen of a run while it goes on: the learner's rows, on a display (a table, lines, or a caller's own)."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from headrace.common.waiting import Waiting
from headrace.launch import network_plan
from headrace.launch.config import Config
from headrace.launch.run_files import PLAN
from headrace.launch.supervisor import Supervisor
from headrace.observe import evaluations
from headrace.observe.evaluations import EvaluationsTail
from headrace.observe.rows import Row, Tail
from headrace.observe.table import Display, Notes
from headrace.observe.watch import Watch


class Screen:
    """``read`` the learner's rows, then ``show`` them; as often as you like."""

    def __init__(self, config: Config, run_dir: Path, display: Display) -> None:
        self._tail, self._total_steps = Tail(run_dir / "metrics.jsonl"), config.run.total_steps
        self._plan, self._planned = run_dir / PLAN, ""
        self._rows: list[Row] = []
        self._display = display
        self._watch = Watch(run_dir)
        self._version, self._heard = 0, False
        self._words: list[str] = []
        self._waiting, self._began_s = Waiting("train", math.inf, self._words.append), time.monotonic()
        self._evaluations, self._evaluation = EvaluationsTail(run_dir / evaluations.FILE), dict[str, Any]()
        self._evaluations.new()  # of a run that goes on, or of nobody
        #: Whether the last row is the last of the run.
        self.finished = False
        #: Whether the evaluator found that the run is to end (run.stop_when_solved).
        self.solved = False
        self.read()
        self._rows.clear()  # of a run that goes on: shown the last time
        self._heard = False

    def read(self) -> bool:
        """Whether there is a new version since the last call."""
        for found in self._evaluations.new():
            self._evaluation = found
            self.solved |= found.get("solved") is True
        rows = self._tail.new_rows()
        self._rows += rows
        if not rows:
            return False
        before, self._version, self._heard = self._version, rows[-1]["version"], True
        self.finished = rows[-1]["env_steps"] >= self._total_steps
        return self._version != before

    def show(self, supervisor: Supervisor) -> None:
        rows, self._rows = self._rows, []
        if not self._heard:
            self._waiting.goes_on(self._began_s, "nothing from the learner yet")
        told = (*self._networks(), *self._words, *supervisor.messages())
        self._words.clear()
        self._display.show(rows, Notes(self._watch.sentence(), supervisor.restarts, told, self._evaluation))

    def _networks(self) -> tuple[str, ...]:
        """Their plan, once: when the learner has made them."""
        if self._planned or not self._version:
            return ()
        self._planned = network_plan.line(network_plan.read(self._plan))
        return (self._planned,) if self._planned else ()

    def close(self, supervisor: Supervisor) -> None:
        self.show(supervisor)
        self._display.close()
