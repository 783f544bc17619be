"""A disk that is full, or a run directory that is gone, under a real learner: it goes on, or ends with its reason and
with what it has learnt.

The limit on a file's size, set from outside on the running process (prlimit), is the full disk: every write fails.
"""

from __future__ import annotations

import itertools
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.algorithms.ppo import PPO
from headrace.common.errors import Fenced
from headrace.common.metrics import Metrics
from headrace.common.pulse import Pulse
from headrace.common.transport.memory import Memory
from headrace.launch.build import Blueprint
from headrace.launch.run_learner import learn, make_learner
from headrace.learner.checkpoint_writer import CheckpointWriter
from headrace.observe.rows import read_rows
from headrace.paramserver.inprocess import InProcess
from headrace.paramserver.lockstep import make_ledger
from headrace.paramserver.store import Store
from tests.faults.run import Run

RESCUED = "ended by an error; its last version is kept in a checkpoint"


class Roles:
    """A run by single roles whose learner's disk can be filled."""

    def __init__(self, run: Run) -> None:
        self.run = run
        run.role("paramserver")
        self.learner = run.role("learner", "--episodes", "0")
        run.role("actor")
        often = run.config.run.checkpoint_every_s < 1
        run.wait_until(lambda: run.version >= 5 and (run.checkpoint().step > 0 or not often), "rows, and a checkpoint")

    def disk(self, full: bool) -> None:
        limit = 0 if full else resource.RLIM_INFINITY
        resource.prlimit(self.learner.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def trains(self) -> None:
        """It makes versions, seen by its metrics: rows cannot tell now."""
        reached = self.version() + 3
        self.run.wait_until(lambda: self.version() >= reached, "it goes on")

    def version(self) -> float:
        return self.run.metrics("learner").get(("learner_policy_version",), -1.0)


@pytest.fixture
def roles(new_run: Callable[..., Run]) -> Callable[..., Roles]:
    return lambda *settings: Roles(new_run("ppo", "actors.processes=1", *settings))


def test_a_disk_full_for_a_while_costs_nothing(roles: Callable[..., Roles]) -> None:
    r = roles("run.checkpoint_every_s=3600")
    r.disk(full=True)
    assert r.learner.stderr is not None
    wait_for_line(r.learner.stderr, "metrics.jsonl: not written (File too large); kept and tried again")
    r.trains()
    rows = len(r.run.rows)
    r.trains()
    assert len(r.run.rows) == rows, "the disk is full"
    r.disk(full=False)
    r.run.wait_until(lambda: len(r.run.rows) > rows + 5, "the rows come")
    r.learner.terminate()
    code, said = r.run.end(r.learner)
    assert code == 0, said
    assert "metrics.jsonl: written again" in said
    assert ", 0 lost" in said
    assert lines_are_rows(r.run.dir / "metrics.jsonl")
    steps = [row["time_s"] for row in r.run.rows]
    assert max(b - a for a, b in itertools.pairwise(steps)) < 2.0, "no gap: the rows of that time are there"


def test_a_disk_that_stays_full_ends_it_with_the_reason(roles: Callable[..., Roles]) -> None:
    r = roles()
    r.disk(full=True)
    code, said = r.run.end(r.learner)
    assert code == 1
    last = said.strip().splitlines()[-1]
    assert last.startswith("headrace learner: checkpoint ")
    assert last.endswith("File too large")
    assert "Traceback" not in said
    assert r.run.checkpoint().info["counters"]["version"] > 0, "the one before is whole"


def test_a_removed_run_directory_ends_it_with_the_reason(roles: Callable[..., Roles]) -> None:
    r = roles()
    while r.run.dir.exists():
        shutil.rmtree(r.run.dir, ignore_errors=True)  # it is being written to meanwhile
    code, said = r.run.end(r.learner)
    assert code == 1
    assert said.strip().splitlines()[-1].endswith("No such file or directory")
    assert "metrics.jsonl: not written (No such file or directory)" in said


def test_its_last_checkpoint_waits_for_the_disk(roles: Callable[..., Roles]) -> None:
    """Told to stop while the disk is full: it must not end with 0 and less than it had learnt."""
    r = roles("run.checkpoint_every_s=3600")
    r.disk(full=True)
    r.trains()
    r.learner.terminate()
    assert r.learner.stderr is not None
    said = wait_for_line(r.learner.stderr, "trying again later")
    r.disk(full=False)
    code, more = r.run.end(r.learner)
    assert code == 0, said + more
    assert len(r.run.checkpoints()) == 2, "the one before it began, and the last"


def wait_for_line(lines: Iterator[str], text: str) -> str:
    """Reads up to the line that holds ``text``; the process ends some time, and with it the lines."""
    seen = ""
    for line in lines:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"never said {text!r}:\n{seen}")


def lines_are_rows(path: Path) -> int:
    return len([json.loads(line) for line in path.read_text().splitlines()])


# --- a last checkpoint whatever ends the learner -------------------------------------------------------------------


class Breaks(Exception):
    """Something nobody thought of."""


@pytest.mark.parametrize("where", ["publish", "update"])
def test_what_was_learnt_is_kept_when_an_error_ends_it(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Between two versions the learner is whole, and kept; in the middle of one it is not."""
    run = new_run("ppo", "run.checkpoint_every_s=3600")
    calls = 0

    def broken(*args: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Breaks
        return real(*args)

    owner, name = (InProcess, "publish") if where == "publish" else (PPO, "update")
    real = getattr(owner, name)
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(Breaks):
        learn_alone(run)
    if where == "publish":
        assert run.checkpoint().step == 3
        assert RESCUED in caplog.text
        assert read_rows(run.dir / "metrics.jsonl")[-1]["version"] == 3
    else:
        assert run.checkpoint().step == 0, "the one before it began"


def test_a_learner_that_was_replaced_keeps_nothing(
    new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run("ppo", "run.checkpoint_every_s=3600")
    real, calls = InProcess.publish, 0

    def fenced(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Fenced
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(InProcess, "publish", fenced)
    with pytest.raises(Fenced):
        learn_alone(run)
    assert run.checkpoint().step == 0, "the one before it began"


def learn_alone(run: Run) -> None:
    """The learner role's own loop, its actors stepped whenever it asks whether to stop."""
    blueprint, metrics = Blueprint(run.config), Metrics("learner")
    carrier, server = Memory(blueprint.limits), InProcess(Store(make_ledger(0)))
    subscriber = server.subscriber(run.config.run.id, 0, 7)
    worker = blueprint.rollout_worker(0, 7, subscriber, carrier, Metrics("actor"))

    def stop() -> bool:
        worker.step(timeout_s=0.0)
        return False

    with CheckpointWriter(run.dir / "checkpoints", metrics=metrics) as checkpoints:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("headrace.launch.run_learner.open_source", lambda *_, **__: carrier)
            learner = make_learner(run.config, run.dir, server, checkpoints, metrics, Pulse(60), None)
        try:
            learn(learner, run.config, run.dir, checkpoints, metrics, stop, Pulse(60))
        finally:
            worker.close()
            learner.close()
