"""The learner role: builds a :class:`Learner` from config and checkpoint, and steps it to the end.

newest checkpoint -> Learner -> step ... step -> checkpoint, row, snapshot when due -> last checkpoint -> exit 0

Under `headrace train` it is one of the children. Alone it owns the run directory: it keeps the settings there, and at
the end evaluates and draws the curve.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.common.errors import CheckpointFailed, Fenced, TransportError, UsageError
from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.transport import Source, open_source, patience_s
from headrace.common.weights.base import Publisher
from headrace.common.weights.grpc import GrpcPublisher
from headrace.launch import init_from, network_plan, resume, run_files
from headrace.launch.bookkeeping import Bookkeeping
from headrace.launch.build import Blueprint, plan_line
from headrace.launch.config import Config
from headrace.launch.device import resolve
from headrace.launch.finish import finish
from headrace.launch.gpu import show_gpu
from headrace.launch.roles import (
    PUBLISH,
    add_role_arguments,
    announced,
    client_tls,
    count,
    only_writer,
    patiently,
    role_config,
    token,
)
from headrace.launch.run_files import Change
from headrace.launch.stopping import Stop
from headrace.learner.checkpoint_reader import Checkpoint
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.learner.counters import Identity
from headrace.learner.loop import Learner

_STEP_S = 0.2
#: How long everybody is given to hear that the run has come to its end.
_FAREWELL_S = 5.0
#: For the last checkpoint, once the supervisor is gone.
_LAST_CHECKPOINT_S = 60.0
_log = logging.getLogger("headrace.learner")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_role_arguments(parser)
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the run directory")
    parser.add_argument("--new-log", action="store_true", help=resume.NEW_LOG_HELP)
    parser.add_argument("--episodes", type=count, default=20, metavar="N", help="greedy episodes at the end (0: none)")


def run(args: argparse.Namespace) -> int:
    if args.run_dir is None:
        raise UsageError("learner: --run-dir is needed; checkpoints and metrics go there")
    config = role_config(args)
    with only_writer(args):
        stop, pulse = Stop(args.supervised), Pulse(config.run.turn_timeout_s)
        code = _run(args, config, stop, pulse)
        if args.stay and resume.finished(args.run_dir, config):
            _stay(args, stop, pulse)
        return code


def _stay(args: argparse.Namespace, stop: Stop, pulse: Pulse) -> None:
    """Be there after the run's end, until told to stop: for platforms that start again whatever ends."""
    with announced(args, Metrics("learner"), pulse):
        while not stop():
            pulse.beat()
            time.sleep(_STEP_S)


def _run(args: argparse.Namespace, config: Config, stop: Stop, pulse: Pulse) -> int:
    changes = _begin(args, config)
    if args.resume and not args.supervised and (said := resume.finished(args.run_dir, config)):
        print(said)
        return 0
    if not args.supervised:
        print(plan_line(Blueprint(config)), flush=True)
    metrics = Metrics("learner")
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
    with (
        CheckpointWriter(folder, keep, metrics=metrics) as checkpoints,
        announced(args, metrics, pulse),
        resume.naming_new_log(),
    ):
        saved = _newest(checkpoints, config) if args.resume else None
        if saved is not None and args.new_log:
            saved, lost = resume.with_new_log(saved, args.run_dir, config)
            changes = [*changes, lost]
        learner = make_learner(config, args.run_dir, publisher, checkpoints, metrics, pulse, saved, stop)
        stop.give(_LAST_CHECKPOINT_S)
        networks = network_plan.of(learner.algorithm)
        run_files.write(args.run_dir, Blueprint(config), changes, networks)
        if not args.supervised and (said := network_plan.line(networks)):
            print(said, flush=True)
        try:
            done = learn(learner, config, args.run_dir, checkpoints, metrics, stop, pulse)
        except CheckpointFailed as error:
            _log.error("headrace learner: %s", error)
            return 1
        finally:
            learner.close(for_good=learner.done or args.supervised is not None)
    if done and not args.supervised:
        stop.over()
        finish(config, args.run_dir, args.episodes, gif=False)
    return 0


def _begin(args: argparse.Namespace, config: Config) -> Sequence[Change]:
    """What is different from the run that goes on. Raises :class:`UsageError` for what must not be, and for a fresh
    start where a run is."""
    if not args.resume:
        if run_files.holds_run(args.run_dir):
            raise UsageError(f"{args.run_dir} already holds a run; go on by --resume, or name another --run-dir")
        return ()
    if not (args.run_dir / run_files.CONFIG).exists():
        return ()
    return resume.changes(run_files.stored_config(args.run_dir), config, args.new_log)


def make_learner(
    config: Config,
    run_dir: Path,
    publisher: Publisher,
    checkpoints: CheckpointWriter,
    metrics: Metrics,
    pulse: Pulse,
    saved: Checkpoint | None,
    stop: Callable[[], bool] = lambda: False,
) -> Learner:
    """A learner, fresh or where a checkpoint left it. Raises :class:`UsageError` for one of another network."""
    blueprint = Blueprint(config)
    import torch

    torch.set_num_threads(config.learner.threads)
    algorithm = blueprint.algorithm()
    show_gpu(metrics, resolve(config.learner).name)
    if saved is None and config.run.init_from is not None:
        init_from.begin(algorithm, config.run.init_from)
    epoch = checkpoints.next_epoch()

    def opening() -> Source:
        return open_source(
            config.transport.url,
            limits=blueprint.limits,
            metrics=metrics,
            dead_letter=run_dir / "dead_letter",
            group=f"headrace-{config.run.id}",
            run_id=config.run.id,
        )

    # A carrier that a checkpoint was made from has been there: it is waited for.
    source = patiently(opening, patience_s(config.transport.url), stop, pulse) if saved else opening()
    return Learner(
        Identity(config.run.id, epoch),
        algorithm,
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
    pulse: Pulse,
) -> bool:
    """Step until the budget is used up or ``stop()``: whether it is used up. Leaves a last row and a last checkpoint
    behind, also when it ends by an error."""
    book = Bookkeeping(learner, config, run_dir, checkpoints, metrics)
    try:
        book.begin()
        learner.start()
        while not learner.done and not stop():
            book.turn(learner.step(_STEP_S))
            pulse.beat()
        book.close()
        if learner.done:
            with contextlib.suppress(TransportError):  # who does not hear it will see that nobody answers
                learner.finish(_FAREWELL_S)
    except Fenced:
        raise  # a newer learner goes on from an older checkpoint: this one's versions are no part of the run
    except Exception:
        book.rescue()
        raise
    return learner.done
