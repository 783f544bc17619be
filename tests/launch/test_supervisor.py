"""Processes that are watched, with real ones: restarted with back-off, or ending the run with their own words."""

import os
import signal
import sys
import time

import pytest

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.launch.supervisor import Child, ProcessDied, Supervisor

SLEEP = "import time; time.sleep(60)"


def child(tmp_path, code, *, name="actor-0", restart=True):
    return Child(name, name.rsplit("-", 1)[0], [sys.executable, "-c", code], tmp_path / f"{name}.log", restart)


@pytest.fixture
def supervise():
    supervisors = []

    def start(*children):
        supervisors.append(Supervisor(list(children), Metrics("supervisor")))
        supervisors[-1].start()
        return supervisors[-1]

    yield start
    for supervisor in supervisors:
        supervisor.stop([c.name for c in supervisor.children], grace_s=0.0)


def poll_until(supervisor, condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition(supervisor.poll()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def test_a_killed_actor_is_started_again(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, SLEEP))
    first = supervisor.children[0].process.pid
    os.kill(first, signal.SIGKILL)
    poll_until(supervisor, lambda _: supervisor.children[0].process and supervisor.children[0].process.pid != first)
    assert supervisor.restarts == {"actor": 1}
    assert supervisor.messages() == ["actor-0 died (SIGKILL); starting it again in 0.25 s"]


def test_one_that_must_not_die_ends_the_run_with_its_own_traceback(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, "raise RuntimeError('out of ideas')", name="learner-0", restart=False))
    with pytest.raises(ProcessDied, match="learner-0 died") as caught:
        poll_until(supervisor, lambda _: False)
    assert "RuntimeError: out of ideas" in caught.value.output


def test_one_that_dies_again_and_again_ends_the_run(tmp_path, supervise, monkeypatch):
    monkeypatch.setattr("headrace.launch.supervisor._FIRST_BACKOFF_S", 0.0)
    supervisor = supervise(child(tmp_path, "raise SystemExit('no such device')"))
    with pytest.raises(ProcessDied) as caught:
        poll_until(supervisor, lambda _: False)
    assert caught.value.output.count("no such device") == 8


def test_bad_usage_is_passed_on_in_its_own_line(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, "import sys; print('gravity: must be negative'); sys.exit(2)"))
    with pytest.raises(UsageError, match="gravity: must be negative"):
        poll_until(supervisor, lambda _: False)


def test_who_does_not_end_in_time_is_killed(tmp_path, supervise):
    ready = "print('up', flush=True); time.sleep(60)"
    stubborn = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {ready}"
    polite = f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); {ready}"
    supervisor = supervise(child(tmp_path, stubborn, name="actor-0"), child(tmp_path, polite, name="actor-1"))
    poll_until(supervisor, lambda _: all("up" in c.tail() for c in supervisor.children))
    assert supervisor.stop(["actor-0", "actor-1"], grace_s=1.0) == {"actor-0": -9, "actor-1": 0}
