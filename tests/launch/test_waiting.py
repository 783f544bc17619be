"""Roles without a parameter server, or without a broker: they say whom they wait for, and end when patience does."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.errors import TransportError
from headrace.common.metrics import Metrics
from headrace.common.transport import open_source
from headrace.common.waiting import FIRST_WORD_S, NEXT_WORD_S, Waiting
from headrace.common.weights.grpc import GrpcFollower
from headrace.launch.build import Blueprint
from headrace.paramserver.options import Options
from headrace.paramserver.server import ParamServer
from tests.faults.run import Run

HEADRACE = str(Path(sys.executable).with_name("headrace"))
ACTOR_WAITS_S = 30


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path, "ppo", "weights.down_timeout_s=7")
    yield run
    run.close()


def test_roles_say_within_ten_seconds_whom_they_wait_for_and_end(run: Run, tmp_path: Path) -> None:
    limits = Blueprint(run.config).limits
    source = open_source(
        run.config.transport.url, limits=limits, metrics=Metrics("learner"), dead_letter=tmp_path / "d", group="x"
    )
    began_s, here = time.monotonic(), f"no answer from the parameter server at {run.config.weights.address}, for "
    actor, evaluator = run.role("actor", "--index", "0"), run.role("evaluator")
    for role, process in (("actor", actor), ("evaluator", evaluator)):
        code, said = run.end(process, 30)
        assert code == 1, said
        first, last = said.splitlines()
        assert first.startswith(f"{role}: {here}")
        assert first.endswith("; goes on waiting")
        assert float(first.split(here)[1].split(" s")[0]) < 10
        assert last.startswith(f"headrace {role}: {here}")
        assert last.endswith("; gives up")
    assert time.monotonic() - began_s > 7
    source.close()


def test_a_learner_may_take_longer_to_begin_than_an_actor_run_singly_waits(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import sys, time, gymnasium\n"
        f"time.sleep({ACTOR_WAITS_S + 3} * ('learner' in sys.argv))\n"
        "def env(**options): return gymnasium.make('CartPole-v1', **options)\n"
    )
    command = [HEADRACE, "train", "cartpole-ppo", "--set", "task.env=late:env", "--set", "run.total_steps=4_000"]
    done = subprocess.run(
        [*command, "--episodes", "0", "--run-dir", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\ntrain: nothing from the learner yet, for \d s; goes on waiting\n", done.stdout)
    assert "; goes on waiting" in (tmp_path / "run" / "logs" / "actor-0.log").read_text()


def test_a_broker_that_is_not_there_is_one_line(new_run: Callable[..., Run]) -> None:
    nowhere = "transport.url='kafka://127.0.0.1:1/trajectories'"
    runs = {role: new_run("ppo", nowhere, name=role) for role in ("train", "learner", "actor")}
    started = {role: run.train() if role == "train" else run.role(role) for role, run in runs.items()}
    for role, process in started.items():
        code, said = runs[role].end(process)
        assert code == 2, (role, said)
        assert said.count("\n") == 1, (role, said)
        assert f"headrace {role}: " in said
        assert "no broker answers" in said


def test_an_evaluator_with_nothing_new_to_play_does_not_take_its_server_for_gone(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/w"
    server = ParamServer(address, Options(run_id="x"), Metrics("paramserver"))
    server.start()
    follower = GrpcFollower(address, "x", "", Metrics("evaluator"), away=Waiting("evaluator", 0.1))
    try:
        for _ in range(3):
            assert follower.newest(-1, 0.2) is None
        server.stop(0.0)
        with pytest.raises(TransportError, match="no answer from the parameter server at unix:"):
            [follower.newest(-1, 0.2) for _ in range(20)]
    finally:
        follower.close()


def test_the_first_word_comes_soon_and_then_now_and_then() -> None:
    now, said = [0.0], list[str]()
    waiting = Waiting("actor", 100.0, said.append, lambda: now[0])
    for now[0] in range(100):
        waiting.goes_on(now[0], "no lease")
    assert [float(line.split("for ")[1].split(" s")[0]) for line in said] == [
        FIRST_WORD_S + n * NEXT_WORD_S for n in range(4)
    ]
    now[0] = 100
    with pytest.raises(TransportError, match="no lease, for 100 s; gives up"):
        waiting.goes_on(now[0], "no lease")
    waiting.over()
    waiting.goes_on(now[0], "no lease")
    assert len(said) == 4, "patience is whole again"
