"""The processes of `headrace train --seeds`: a `headrace train` of each seed, started, shown, and stopped in order."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TextIO

from headrace.launch.child import Child, stop_all
from headrace.launch.config import Config
from headrace.launch.run_files import ROWS
from headrace.launch.seeds_dir import COMMON, DONE, SeedsDir, read_result
from headrace.launch.stopping import Stop
from headrace.observe.evaluations import with_interval
from headrace.observe.rows import Tail
from headrace.observe.seeds_table import Progress, open_display

_POLL_S = 0.1
#: What a training may take to stop: its learner writes a checkpoint, its actors finish a fragment, trackers send.
_GRACE_S = 150.0


class Training:
    """The seeds that are not done, ``parallel`` at a time; of the first one a GIF, if asked. Each process inherits
    ``lock``, so that the directory is held until the last has ended. ``failed``: seed -> how, of those that ended
    badly."""

    def __init__(self, there: SeedsDir, lock: int, parallel: int, gif: bool, screen: TextIO) -> None:
        self._there, self._lock, self._parallel, self._gif = there, lock, parallel, gif
        self._config = there.config()
        self._progress = {seed: Progress(seed, DONE if there.done(seed) else "waiting") for seed in there.seeds}
        self._tails = {seed: Tail(there.run_dir(seed) / ROWS) for seed in there.seeds}
        self._waiting = deque(seed for seed in there.seeds if not there.done(seed))
        self._running: dict[int, Child] = {}
        self.failed: dict[int, str] = {}
        self._display = open_display(_title(self._config, there), screen)

    def run(self) -> bool:
        """Train them; whether somebody asked for a stop before all had their turn."""
        stop = Stop()
        for seed in self._there.seeds:
            if self._there.done(seed):
                self._tell_done(seed)
        try:
            while (self._waiting or self._running) and not stop():
                self._turn()
                time.sleep(_POLL_S)
            return bool(self._waiting or self._running)
        finally:
            stop_all(self._running.values(), _GRACE_S)
            self._turn(start=False)
            self._display.close(list(self._progress.values()))
            stop.over()

    def _turn(self, start: bool = True) -> None:
        while start and self._waiting and len(self._running) < self._parallel:
            self._start(self._waiting.popleft())
        for seed, child in list(self._running.items()):
            self._progress[seed].add(self._tails[seed].new_rows())
            if (code := child.ended()) is not None:
                del self._running[seed]
                self._ended(seed, child, code, asked=not start)
        self._display.show(list(self._progress.values()))

    def _start(self, seed: int) -> None:
        argv = [sys.executable, "-m", "headrace.launch.cli", "train", *self._words(seed)]
        child = Child(f"seed-{seed}", "train", argv, self._there.log(seed), False, inherit=(self._lock,))
        child.start()
        self._running[seed], self._progress[seed].state = child, "running"

    def _words(self, seed: int) -> list[str]:
        """What a person would type for this seed alone."""
        there, run_id = self._there, self._config.run.id
        kept = ["--run-dir", str(there.run_dir(seed)), "--episodes", str(there.episodes)]
        if not self._gif or seed != there.seeds[0]:
            kept.append("--no-gif")
        if there.begun(seed):
            return ["--resume", *kept]
        named = ["--set", f"run.id={run_id}-seed-{seed}"] if run_id else []
        return [str(there.path / COMMON), "--set", f"run.seed={seed}", *named, *kept]

    def _ended(self, seed: int, child: Child, code: int, asked: bool) -> None:
        progress = self._progress[seed]
        if self._there.done(seed):
            progress.state = DONE
            self._tell_done(seed)
        elif asked or code == 0:
            progress.state = "stopped"
        else:
            progress.state = f"failed: {child.last_line()}"
            self.failed[seed] = progress.state
            self._display.tell(f"seed {seed} {progress.state} (exit code {code}; all of it: {child.log})")
        child.close()
        try:
            self._there.keep(self._there.outcome(self.failed))
        except OSError as error:
            self._display.tell(f"{self._there.path}: not everything could be written: {error}")

    def _tell_done(self, seed: int) -> None:
        result = read_result(self._there.run_dir(seed))
        found, took = result["evaluation"], f"{result['env_steps']:,} steps in {result['train_s']:.1f} s"
        if found is not None:
            greedy = with_interval(found["mean"], found["interval95"])
            took = f"greedy {greedy}, lowest {min(found['returns']):.1f}; {took}"
        self._display.tell(f"seed {seed}: {took}")


def _title(config: Config, there: SeedsDir) -> str:
    return f"{config.algorithm_label} on {config.task.env}, seeds {there.seeds[0]} to {there.seeds[-1]}"
