"""What a learner writes while it learns: rows, TensorBoard, checkpoints, snapshots, and a word when nothing moves.

A disk that is full, or gone, holds all of it up. Rows and events wait and are tried again (common/appender.py), and so
are checkpoints: only they end the run, when they fail again and again, for without them it goes on in vain.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headrace.algorithms.base import State
from headrace.common import durable
from headrace.common.appender import Appender
from headrace.common.errors import CheckpointFailed
from headrace.common.metrics import Metrics
from headrace.common.types import Weights
from headrace.launch import snapshot
from headrace.launch.config import Config
from headrace.launch.run_files import ROWS
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.learner.counters import TrainResult
from headrace.learner.loop import Learner
from headrace.learner.report import Report
from headrace.observe import evaluations
from headrace.observe.evaluations import EvaluationsTail
from headrace.observe.rows import MetricsLog
from headrace.observe.tensorboard import TensorBoardWriter

#: Seconds without a new version after which the learner says aloud what it waits for.
_SILENCE_S = 10.0
#: Failures in a row after which a checkpoint is not tried again; the pause before the last one's next try.
_CHECKPOINT_TRIES, _LAST_PAUSE_S = 3, 1.0
#: Writes to stderr and, unlike print, survives a stderr that is a file on the full disk.
_log = logging.getLogger("headrace.learner")


class Bookkeeping:
    """Call :meth:`begin`, then :meth:`turn` after every step, and at the end :meth:`close`; or :meth:`rescue` when it
    ends by an error."""

    def __init__(
        self, learner: Learner, config: Config, run_dir: Path, checkpoints: CheckpointWriter, metrics: Metrics
    ) -> None:
        self._learner, self._run = learner, config.run
        self._checkpoints, self._metrics = checkpoints, metrics
        self._report = Report(metrics, learner.counters, config.run.total_steps, learner.identity.learner_epoch)
        self._rows, self._board = MetricsLog(run_dir / ROWS), TensorBoardWriter(run_dir / "tensorboard")
        self._settings: Mapping[str, Any] | None = config.in_full().flat()
        self._evaluations = EvaluationsTail(run_dir / evaluations.FILE)
        self._evaluation = next(reversed(self._evaluations.new()), None)
        self._snapshots = Snapshots(run_dir / "snapshots", learner, config.run.snapshot_every_steps)
        self._snapshots.turn()
        self._checkpoint_at_s = learner.counters.trained_s + self._run.checkpoint_every_s
        self._kept_version = learner.counters.version
        self._moved_s = time.monotonic()

    def begin(self) -> None:
        """Before anybody can hold a lease: a fresh learner's place in the log is durable, so that one that dies before
        its next checkpoint loses nothing that was put."""
        if self._learner.fresh:
            while not self._checkpoint():
                time.sleep(_LAST_PAUSE_S)

    def turn(self, trained: TrainResult | None) -> None:
        now = time.monotonic()
        if trained is not None:
            self._report.add(trained)
            self._snapshots.turn()
            self._moved_s = now
        elif now - self._moved_s > _SILENCE_S:
            waiting, refused = self._learner.backlog(), self._report.refused()
            said = f"{waiting} fragments wait in the carrier" + (f"; refused so far: {refused}" if refused else "")
            _log.warning("learner: no new version for %.0f s; %s", _SILENCE_S, said)
            self._moved_s = now
        if self._report.due_s >= self._run.log_every_s:
            self._row()
        if self._learner.counters.trained_s >= self._checkpoint_at_s:
            self._checkpoint()

    def close(self) -> None:
        """The last row and the last checkpoint. Raises :class:`CheckpointFailed` when that cannot be written."""
        if self._report.due_s > 0:
            self._row()
        while not self._checkpoint():
            time.sleep(_LAST_PAUSE_S)
        self._close_files()

    def rescue(self) -> None:
        """After an error: what was learnt since the last checkpoint, if the learner is whole and the disk takes it."""
        if self._report.due_s > 0:
            self._row()
        if self._learner.whole and self._learner.counters.version > self._kept_version:
            try:
                self._save()
                _log.warning("learner: ended by an error; its last version is kept in a checkpoint")
            except CheckpointFailed as error:
                _log.warning("learner: ended by an error, and %s", error)
        self._close_files()

    # --- parts -----------------------------------------------------------------------------------------------------

    def _row(self) -> None:
        row: Any = {**self._report.row(), "acting": dict(self._learner.scalars)}
        if (fill := self._learner.experience.fill) is not None:
            row["replay_fill"] = round(fill, 4)
        evaluated = self._evaluations.new()
        self._evaluation = evaluated[-1] if evaluated else self._evaluation
        if self._evaluation is not None:
            row["evaluation"] = evaluations.short(self._evaluation)
        self._rows.write(row)
        if self._settings is not None:  # now, when nobody waits for a first version any more
            self._board.hyper_parameters(self._settings, self._run.id)
            self._settings = None
        self._board.show([row])
        self._board.evaluated(evaluated)

    def _checkpoint(self) -> bool:
        """Whether it was written. A failed one is tried again later (the one before is intact); failing again and again
        raises."""
        try:
            self._save()
        except CheckpointFailed as error:
            if self._checkpoints.failures_in_a_row >= _CHECKPOINT_TRIES:
                raise
            _log.warning("learner: %s; trying again later", error)
            return False
        finally:
            self._checkpoint_at_s = self._learner.counters.trained_s + self._run.checkpoint_every_s
        return True

    def _save(self) -> None:
        with self._metrics.phase("learner_phase_seconds_total", "checkpoint"):
            parts, info = self._learner.snapshot()
            tensors, scalars = self._learner.algorithm.weights()
            parts["acting"] = State({k: np.array(v) for k, v in tensors.items()}, {"scalars": scalars})
            self._checkpoints.save(self._learner.counters.version, parts, info)
            self._kept_version = self._learner.counters.version
            self._learner.commit()

    def _close_files(self) -> None:
        for file in (self._rows, self._board, self._snapshots):
            file.close()


class Snapshots:
    """The acting weights every so many steps, beside the clock, to be evaluated afterwards (headrace evaluate
    --checkpoint, bench/time_to.py): <steps>.safetensors, and a line in index.jsonl."""

    def __init__(self, folder: Path, learner: Learner, every_steps: int) -> None:
        self._folder, self._learner, self._every_steps = folder, learner, every_steps
        self._due = learner.counters.env_steps
        self._index = Appender(folder / "index.jsonl")

    def turn(self) -> None:
        counters = self._learner.counters
        if not self._every_steps or counters.env_steps < self._due:
            return
        self._due = counters.env_steps + self._every_steps
        tensors, scalars = self._learner.algorithm.weights()
        weights = Weights("", 0, counters.version, tensors, scalars, counters.env_steps)
        path = self._folder / f"{counters.env_steps}.safetensors"
        try:
            self._folder.mkdir(exist_ok=True)
            durable.replace_file(path, snapshot.encode(weights))
        except OSError as error:
            _log.warning("%s: not written (%s)", path, error.strerror)
            return
        line = json.dumps({"steps": counters.env_steps, "time_s": round(counters.trained_s, 3)})
        self._index.add(line.encode() + b"\n")

    def close(self) -> None:
        self._index.close()
