"""/healthz and `headrace health` of real roles: only who stands still himself is unwell, whoever he waits for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.common.pulse import Pulse
from headrace.observe import endpoints
from headrace.observe.health import ask
from tests.faults.run import Run
from tests.launch.runs import headrace

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ("paramserver", "learner", "actor", "evaluator")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Run]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = Run(tmp_path, "ppo", *getattr(request, "param", ()))
    try:
        yield made
    finally:
        made.close()


def url(run: Run, role: str) -> str | None:
    return next((e.metrics for e in endpoints.read(run.dir) if e.role == role), None)


def well(run: Run, role: str) -> bool:
    address = run.wait_until(lambda: url(run, role), f"{role} announced itself")
    return ask(str(address), timeout_s=5)[0]


def test_a_pulse_is_lost_after_its_timeout_and_found_again() -> None:
    now_s = [100.0]
    pulse = Pulse(2.0, clock=lambda: now_s[0])
    assert pulse.beats()
    now_s[0] += 2.0
    assert not pulse.beats()
    pulse.beat()
    assert pulse.beats()


@pytest.mark.parametrize("run", [("run.turn_timeout_s=5", "weights.down_timeout_s=100")], indirect=True)
def test_who_waits_for_a_frozen_learner_is_well(run: Run) -> None:
    for role in ROLES:
        run.role(role)
    run.wait_until(lambda: run.version >= 3, "version 3")
    learner = int(run.wait_until(lambda: run.pid("learner"), "the learner is there"))
    try:
        run.wait_until(lambda: frozen_while_the_actor_has_put(run, learner), "the actor waits for a lease")
        began_s = lease_s(run)
        run.wait_until(lambda: lease_s(run) > began_s + 7, "it waits for longer than a turn may take")
        for role in ("paramserver", "actor", "evaluator"):
            assert well(run, role), role
        assert headrace("health", str(url(run, "actor"))).returncode == 0
        frozen = headrace("health", str(url(run, "learner")), "--timeout-s", "1")
        assert (frozen.returncode, "no answer" in frozen.stderr) == (1, True)
    finally:
        os.kill(learner, signal.SIGCONT)
    run.wait_until(lambda: well(run, "learner"), "the learner is well again")


def lease_s(run: Run) -> float:
    """For how long the actor has waited for leases in all."""
    return run.metrics("actor").get(("actor_phase_seconds_total", "lease"), 0.0)


def frozen_while_the_actor_has_put(run: Run, learner: int) -> bool:
    """Freeze the learner; not if a fragment is on its way to it just then, which is another wait."""
    os.kill(learner, signal.SIGSTOP)
    began_s = lease_s(run)
    time.sleep(3)
    if lease_s(run) > began_s + 1:
        return True
    os.kill(learner, signal.SIGCONT)
    return False


SLOW = "task.env=tests.tasks.bad_envs:Slow-v0"


@pytest.mark.parametrize("run", [(SLOW, "task.kwargs.step_s=0.2", "run.turn_timeout_s=2")], indirect=True)
def test_a_fragment_that_takes_long_is_no_standing_still(run: Run) -> None:
    """64 calls of 0.2 s to a turn of the loop."""
    for role in ("paramserver", "learner", "actor"):
        run.role(role)
    run.wait_until(lambda: run.metrics("paramserver").get(("leases_issued_total",)), "the actor has a lease")
    began_s = run.metrics("actor")[("up_seconds",)]
    run.wait_until(lambda: run.metrics("actor").get(("up_seconds",), 0.0) > began_s + 5, "it steps for 5 s")
    assert run.metrics("actor").get(("actor_fragments_total",)) == 0
    assert well(run, "actor")


@pytest.mark.parametrize("run", [(SLOW, "task.kwargs.step_s=100", "run.turn_timeout_s=2")], indirect=True)
def test_who_stands_still_says_so(run: Run) -> None:
    for role in ("paramserver", "learner", "actor"):
        run.role(role)
    assert well(run, "actor")
    run.wait_until(lambda: run.metrics("paramserver").get(("leases_issued_total",)), "the actor has a lease")
    address = str(url(run, "actor"))

    def says_so() -> bool:
        said = headrace("health", address)
        return (said.returncode, said.stderr) == (1, f"{address}: not making progress\n")

    run.wait_until(says_so, "the actor is unwell")
    run.wait_until(lambda: well(run, "learner"), "the learner, which waits for the actor, is well")


def test_nobody_there_and_no_address_are_one_line() -> None:
    there = headrace("health", "http://127.0.0.1:1")
    assert (there.returncode, there.stderr.count("\n")) == (1, 1)
    bad = headrace("health", "127.0.0.1:1")
    assert (bad.returncode, bad.stderr) == (
        2, "headrace health: metrics address '127.0.0.1:1': use http://host:port\n"
    )  # fmt: skip
