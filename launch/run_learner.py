"""The learner role: builds a :class:`Learner` from config and checkpoint, and steps it to the end.

newest checkpoint -> Learner -> step ... step -> checkpoint, row, snapshot when due -> last checkpoint -> exit 0
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headrace.algorithms.base import State
from headrace.common.errors import CheckpointFailed, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.transport import open_source
from headrace.common.weights.base import Publisher
from headrace.common.weights.grpc import GrpcPublisher
from headrace.launch.build import Blueprint
from headrace.launch.config import Config
from headrace.launch.roles import PUBLISH, add_role_arguments, announced, client_tls, role_config, token
from headrace.launch.stopping import Stop
from headrace.learner.checkpoint_reader import Checkpoint
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.learner.loop import Identity, Learner
from headrace.learner.report import Report
from headrace.observe.rows import MetricsLog

_STEP_S = 0.2
_FAREWELL_S = 5.0
#: Seconds without a new version after which the learner says aloud what it waits for.
_SILENCE_S = 10.0
_CHECKPOINT_TRIES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run directory")


def run(args: argparse.Namespace) -> int:
    config = role_config(args)
    if args.run_dir is None:
        raise UsageError("learner: --run-dir is needed; checkpoints and metrics go there")
    stop, metrics = Stop(args.supervised), Metrics("learner")
    publisher = GrpcPublisher(
        config.weights.address,
        config.run.id,
        token(config, PUBLISH),
        metrics,
        tls=client_tls(config),
        down_timeout_s=config.weights.down_timeout_s,
        stop=stop,
    )
    folder, keep = args.run_dir / "checkpoints", config.run.checkpoint_keep
    with CheckpointWriter(folder, keep, metrics=metrics) as checkpoints, announced(args, metrics, "learner"):
        learner = make_learner(config, args.run_dir, publisher, checkpoints, metrics, resume=args.resume)
        try:
            learner.start()
            learn(learner, config, args.run_dir, checkpoints, metrics, stop)
            if learner.done:
                with contextlib.suppress(TransportError):  # who does not hear it will see that nobody answers
                    learner.finish(_FAREWELL_S)
        finally:
            learner.close()
    return 0


def make_learner(
    config: Config,
    run_dir: Path,
    publisher: Publisher,
    checkpoints: CheckpointWriter,
    metrics: Metrics,
    *,
    resume: bool,
) -> Learner:
    """A learner, fresh or where the newest checkpoint left it. Raises :class:`UsageError` for a foreign checkpoint."""
    blueprint = Blueprint(config)
    saved = _newest(checkpoints, config) if resume else None
    import torch

    torch.set_num_threads(config.learner.threads)
    epoch = checkpoints.next_epoch()
    source = open_source(
        config.transport.url,
        limits=blueprint.limits,
        metrics=metrics,
        dead_letter=run_dir / "dead_letter",
        group=f"headrace-{config.run.id}",
        run_id=config.run.id,
    )
    return Learner(
        Identity(config.run.id, epoch),
        blueprint.algorithm(),
        source,
        publisher,
        blueprint.check_fragment,
        metrics,
        seed=config.run.seed,
        max_staleness=config.learner.max_staleness,
        total_steps=config.run.total_steps,
        queue_bytes=config.transport.queue_bytes,
        resume=saved.parts if saved else None,
        info=saved.info if saved else None,
    )


def _newest(checkpoints: CheckpointWriter, config: Config) -> Checkpoint | None:
    """The checkpoint to go on from; None where the run died before its first. Never starts anew in silence."""
    saved = checkpoints.latest({"run_id": config.run.id})
    if saved is None and (damaged := sorted(checkpoints.root.glob("ckpt-*"))):
        raise UsageError(
            f"--resume: none of the {len(damaged)} checkpoints under {checkpoints.root} is intact; "
            "restore one, or start a new run in another directory"
        )
    return saved


def learn(
    learner: Learner,
    config: Config,
    run_dir: Path,
    checkpoints: CheckpointWriter,
    metrics: Metrics,
    stop: Callable[[], bool],
) -> None:
    """Step until the budget is used up or ``stop()``; leaves a last row and a last checkpoint behind."""
    book = _Book(learner, config, run_dir, checkpoints, metrics)
    book.snapshot_if_due()
    while not learner.done and not stop():
        trained = learner.step(_STEP_S)
        if trained is not None:
            book.report.add(trained)
            book.snapshot_if_due()
        book.turn(made_version=trained is not None)
    book.close()


class _Book:
    """What is written while learning: rows, checkpoints, snapshots, and a word when nothing moves."""

    def __init__(
        self, learner: Learner, config: Config, run_dir: Path, checkpoints: CheckpointWriter, metrics: Metrics
    ) -> None:
        self._learner, self._run, self._run_dir = learner, config.run, run_dir
        self._checkpoints, self._metrics = checkpoints, metrics
        self.report = Report(metrics, learner.counters, config.run.total_steps)
        self._rows = MetricsLog(run_dir / "metrics.jsonl")
        self._checkpoint_at_s = learner.counters.trained_s + self._run.checkpoint_every_s
        self._snapshot_at = learner.counters.env_steps
        self._moved_s = time.monotonic()

    def turn(self, made_version: bool) -> None:
        now = time.monotonic()
        if made_version:
            self._moved_s = now
        elif now - self._moved_s > _SILENCE_S:
            backlog = self._learner.backlog()
            refused = self.report.refused()
            print(f"learner: no new version for {_SILENCE_S:.0f} s; {backlog} fragments wait in the carrier"
                  f"{f'; refused so far: {refused}' if refused else ''}", file=sys.stderr, flush=True)  # fmt: skip
            self._moved_s = now
        if self.report.due_s >= self._run.log_every_s:
            self._rows.write(self.report.row())
        if self._learner.counters.trained_s >= self._checkpoint_at_s:
            self.checkpoint()

    def checkpoint(self) -> None:
        """A failed write is tried again later (the old checkpoint is intact); failing again and again ends the run."""
        with self._metrics.phase("learner_phase_seconds_total", "checkpoint"):
            parts, info = self._learner.snapshot()
            tensors, scalars = self._learner.algorithm.weights()
            parts["acting"] = State({k: np.array(v) for k, v in tensors.items()}, {"scalars": scalars})
            try:
                self._checkpoints.save(self._learner.counters.version, parts, info)
            except CheckpointFailed as error:
                if self._checkpoints.failures_in_a_row >= _CHECKPOINT_TRIES:
                    raise
                print(f"learner: {error}; trying again later", file=sys.stderr, flush=True)
            else:
                self._learner.commit()
        self._checkpoint_at_s = self._learner.counters.trained_s + self._run.checkpoint_every_s

    def snapshot_if_due(self) -> None:
        """Acting weights beside the clock, for benches that evaluate afterwards (bench/time_to.py)."""
        counters = self._learner.counters
        if not self._run.snapshot_every_steps or counters.env_steps < self._snapshot_at:
            return
        from safetensors.numpy import save_file

        folder = self._run_dir / "snapshots"
        folder.mkdir(exist_ok=True)
        tensors: dict[str, Any] = self._learner.algorithm.weights()[0]
        save_file(
            {k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / f"{counters.env_steps}.safetensors"
        )
        with (folder / "index.jsonl").open("a") as index:
            index.write(json.dumps({"steps": counters.env_steps, "time_s": round(counters.trained_s, 3)}) + "\n")
        self._snapshot_at = counters.env_steps + self._run.snapshot_every_steps

    def close(self) -> None:
        if self.report.due_s > 0:
            self._rows.write(self.report.row())
        self.checkpoint()
        self._rows.close()
