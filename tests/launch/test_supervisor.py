"""Processes that are watched, with real ones: restarted with back-off, or ending the run with their own words."""

import os
import shutil
import signal
import sys
import time

import pytest

from headrace.common.errors import UsageError
from headrace.common.metrics import Metrics
from headrace.launch.child import Child
from headrace.launch.supervisor import ProcessDied, Supervisor
from tests.faults.run import alive

SLEEP = "import time; time.sleep(60)"


def child(tmp_path, code, *, name="actor-0", restart=True):
    return Child(name, name.rsplit("-", 1)[0], [sys.executable, "-c", code], tmp_path / f"{name}.log", restart)


@pytest.fixture
def supervise():
    supervisors = []

    def start(*children, **more):
        supervisors.append(Supervisor(list(children), Metrics("supervisor"), **more))
        supervisors[-1].start()
        return supervisors[-1]

    yield start
    for supervisor in supervisors:
        supervisor.stop([c.name for c in supervisor.children], grace_s=0.0)
        supervisor.close()


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


def test_told_to_stop_while_it_starts_them_it_starts_no_more(tmp_path, supervise):
    supervisor = supervise()
    supervisor.children += [child(tmp_path, SLEEP, name=f"actor-{k}") for k in range(3)]
    supervisor.start(stop=lambda: supervisor.children[1].process is not None)
    assert [c.process is not None for c in supervisor.children] == [True, True, False]


def test_one_that_must_not_die_ends_the_run_with_its_own_traceback(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, "raise RuntimeError('out of ideas')", name="learner-0", restart=False))
    with pytest.raises(ProcessDied, match="learner-0 died") as caught:
        poll_until(supervisor, lambda _: False)
    assert "RuntimeError: out of ideas" in caught.value.output


@pytest.mark.parametrize("ending", ["raise SystemExit(0)", "import os; os._exit(0)"])
def test_an_end_with_exit_code_0_is_a_death_like_others_and_is_told(tmp_path, supervise, ending):
    supervisor = supervise(child(tmp_path, ending))
    poll_until(supervisor, lambda _: supervisor.restarts == {"actor": 1})
    assert supervisor.messages() == ["actor-0 ended though the run goes on (exit code 0); starting it again in 0.25 s"]


def test_when_the_run_comes_to_its_end_nobody_is_started_again(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, "raise SystemExit(0)"), child(tmp_path, "raise SystemExit(1)", name="x-0"))
    supervisor.finishing = True
    poll_until(supervisor, lambda ended: ended == ["actor-0", "x-0"])
    assert (supervisor.restarts, supervisor.messages()) == ({}, [])


def test_the_reason_of_a_death_is_told(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, "print('said before'); raise ValueError('reward is NaN')"))
    poll_until(supervisor, lambda _: supervisor.restarts == {"actor": 1})
    told = "actor-0 died (exit code 1): ValueError: reward is NaN; starting it again in 0.25 s"
    assert supervisor.messages() == [told]


def test_when_every_process_of_a_role_dies_again_and_again_the_run_ends(tmp_path, supervise, monkeypatch):
    monkeypatch.setattr("headrace.launch.supervisor._FIRST_BACKOFF_S", 0.0)
    supervisor = supervise(
        child(tmp_path, SLEEP, name="learner-0", restart=False),
        child(tmp_path, "raise SystemExit('no such device')"),
        child(tmp_path, "raise SystemExit('no such device')", name="actor-1"),
    )
    with pytest.raises(ProcessDied, match="every actor died 5 times in a row") as caught:
        poll_until(supervisor, lambda _: False)
    assert "died (exit code 1): no such device" in caught.value.output
    assert supervisor.restarts["actor"] >= 8


def test_one_that_is_broken_among_good_ones_is_tried_again_and_again(tmp_path, supervise, monkeypatch):
    monkeypatch.setattr("headrace.launch.supervisor._FIRST_BACKOFF_S", 0.0)
    supervisor = supervise(child(tmp_path, SLEEP), child(tmp_path, "raise SystemExit(1)", name="actor-1"))
    poll_until(supervisor, lambda _: supervisor.restarts.get("actor", 0) >= 12)


def test_a_run_that_moves_or_has_just_moved_does_not_end(tmp_path, supervise, monkeypatch):
    monkeypatch.setattr("headrace.launch.supervisor._FIRST_BACKOFF_S", 0.0)
    supervisor = supervise(child(tmp_path, "raise SystemExit(1)"), patience_s=3600.0)
    poll_until(supervisor, lambda _: supervisor.moved() or supervisor.restarts.get("actor", 0) >= 7)
    poll_until(supervisor, lambda _: supervisor.restarts["actor"] >= 14)


def test_bad_usage_of_a_run_that_has_moved_is_a_death_like_others(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, "import sys; print('no broker answers'); sys.exit(2)"))
    supervisor.moved()
    poll_until(supervisor, lambda _: supervisor.restarts == {"actor": 1})
    assert supervisor.messages() == ["actor-0 died (exit code 2): no broker answers; starting it again in 0.25 s"]


def role(tmp_path, code, log):
    """A process that logs as our roles do."""
    attach = "import sys; from headrace.launch.lifeline import Attached; Attached(int(sys.argv[-1])); "
    return Child("learner-0", "learner", [sys.executable, "-c", attach + code], log, restart=False)


def test_a_log_that_takes_nothing_does_not_take_the_reason_with_it(tmp_path, supervise):
    (tmp_path / "learner-0.log").symlink_to("/dev/full")
    code = "print('a' * 100_000, flush=True); raise OSError(28, 'No space left on device', 'metrics.jsonl')"
    supervisor = supervise(role(tmp_path, code, tmp_path / "learner-0.log"))
    with pytest.raises(ProcessDied) as caught:
        poll_until(supervisor, lambda _: False)
    assert "OSError: [Errno 28] No space left on device: 'metrics.jsonl'" in caught.value.output


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_log_whose_folder_is_gone_does_not_take_the_reason_with_it(tmp_path, supervise, when):
    (logs := tmp_path / "logs").mkdir()
    wait = "import os, time\nwhile os.path.exists(os.environ['LOGS']): time.sleep(0.01)\n"
    learner = role(tmp_path, f"exec({wait!r}); raise RuntimeError('out of ideas')", logs / "learner-0.log")
    learner.env["LOGS"] = str(logs)
    if when == "before":
        logs.rmdir()
    supervisor = supervise(learner)
    if when == "while":
        shutil.rmtree(logs)
    with pytest.raises(ProcessDied) as caught:
        poll_until(supervisor, lambda _: False)
    assert caught.value.output.splitlines()[-1] == "RuntimeError: out of ideas"


def test_what_a_process_has_started_ends_with_it(tmp_path, supervise):
    started = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); "
    supervisor = supervise(
        child(tmp_path, started + "sys.exit(1)"),
        child(tmp_path, started + "import time; time.sleep(60)", name="actor-1"),
    )
    poll_until(supervisor, lambda _: supervisor.restarts)
    poll_until(supervisor, lambda _: supervisor.children[1].tail())
    supervisor.finishing = True
    supervisor.stop(["actor-0", "actor-1"], grace_s=5.0)
    sleepers = [int(line) for log in tmp_path.glob("actor-*.log") for line in log.read_text().split()]
    assert len(sleepers) >= 2
    poll_until(supervisor, lambda _: not any(alive(pid) for pid in sleepers), timeout_s=5.0)


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


@pytest.mark.parametrize("ending", ["raise SystemExit(1)", "raise SystemExit(2)", "raise SystemExit(0)"])
def test_what_the_run_does_not_need_ends_it_never_and_is_started_again_after_longer_and_longer(
    tmp_path, supervise, monkeypatch, ending
):
    monkeypatch.setattr("headrace.launch.supervisor._FIRST_PAUSE_S", 0.01)
    supervisor = supervise(child(tmp_path, SLEEP))
    optional = child(tmp_path, ending, name="evaluator-0")
    optional.needed = False
    supervisor.add(optional, after_s=0.05)
    assert optional.process is None
    poll_until(supervisor, lambda _: supervisor.restarts == {"evaluator": 6})
    pauses = [message.split()[-2] for message in supervisor.messages()]
    assert pauses == ["0.01", "0.02", "0.04", "0.08", "0.16", "0.32"]


def test_what_the_run_does_not_need_may_be_impossible_to_start(tmp_path, supervise):
    supervisor = supervise(child(tmp_path, SLEEP))
    optional = child(tmp_path, SLEEP, name="evaluator-0")
    optional.argv, optional.needed = [str(tmp_path / "nothing")], False
    supervisor.add(optional, after_s=0.0)
    poll_until(supervisor, lambda _: supervisor.restarts == {"evaluator": 1})
    told = "evaluator-0 cannot be started (No such file or directory); starting it again in 15 s"
    assert supervisor.messages() == [told]
