"""Bad environments in real actors: each ends with one line that names environment, array and cause, and nothing of it
is ever trained on."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.metrics import Metrics
from headrace.common.transport.local_sink import LocalSink
from headrace.launch.build import Blueprint
from tests.faults.run import Run
from tests.launch.runs import headrace
from tests.tasks import bad_envs

ROOT = Path(__file__).resolve().parent.parent.parent
THERE = "tests.tasks.bad_envs"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Role processes find the tests' environments."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A parameter server and a learner that wait for good fragments; every actor of this file may join them."""
    os.environ["PYTHONPATH"] = str(ROOT)
    run = Run(tmp_path_factory.mktemp("bad-envs"), "ppo", f"task.env={THERE}:Good-v0", "actors.step_timeout_s=1")
    try:
        run.role("paramserver")
        run.role("learner")
        run.wait_until(lambda: run.metrics("paramserver").get(("leases_admit_until",)), "the learner has published")
        yield run
    finally:
        run.close()


def actor(run: Run, name: str, index: int, *settings: str) -> tuple[int, list[str]]:
    """Exit code and stderr of an actor on a bad environment. It must end by itself."""
    sets = [word for setting in settings for word in ("--set", setting)]
    process = run.role("actor", "--index", str(index), "--set", f"task.env={THERE}:{name}-v0", *sets)
    code, said = run.end(process, 30)
    return code, said.splitlines()


#: environment -> what its actor's last line says besides its name and number
ENDS = {
    "Nan": "obs holds nan; every value must be finite and within -1e+15 and 1e+15",
    "NanReward": "reward holds nan; every value must be finite",
    "HugeReward": "reward holds 1e+30; every value must be finite and within -1e+15 and 1e+15",
    "NoReward": "reward holds nan; every value must be finite",  # what numpy makes of None
    "OtherShape": "showed an observation of shape (1,); its observation space says (4,)",
    "OtherDtype": "showed an observation of complex64, which is no float32",
    "Raises": "raised ArithmeticError: the pole is gone (bad_envs.py, line ",
    "RaisesInReset": "raised LookupError: no level left (bad_envs.py, line ",
    "Leaves": "raised SystemExit: 0 (bad_envs.py, line ",
}


@pytest.mark.parametrize("name", ENDS)
def test_an_actor_ends_with_the_cause_after_it_made_its_environments_anew(served: Run, name: str) -> None:
    code, lines = actor(served, name, 0)
    assert code == 1, "\n".join(lines)
    assert len(lines) == 4, lines
    for n, line in enumerate(lines[:3], start=1):
        assert line.startswith("actor: worker 0: environment ")
        assert line.endswith(f"; made anew ({n} of 3)")
    last = lines[3]
    assert last.startswith(f"headrace actor: worker 0: environment '{THERE}:{name}-v0' number ")
    assert ENDS[name] in last
    assert last.endswith("; making it anew 3 times did not help")
    assert served.metrics("learner")[("learner_fragments_total",)] == 0, "nothing of it was sent"
    assert not [n for n in served.metrics("learner").items() if n[0][0] == "learner_rejected_total" and n[1]]


def test_a_hang_ends_the_actor_with_the_line_it_hangs_in(served: Run) -> None:
    code, lines = actor(served, "Hangs", 0)
    assert code == 1, "\n".join(lines)
    (line,) = lines
    assert line.startswith(
        f"headrace actor: environment '{THERE}:Hangs-v0' number 0 hangs: a call has not returned for 1"
    )
    assert ", in bad_envs.py line " in line


def test_a_hang_that_holds_the_interpreter_ends_as_well_and_says_where(served: Run) -> None:
    code, lines = actor(served, "HangsInC", 0)
    assert code == 1, "\n".join(lines)
    assert any("Timeout" in line for line in lines)
    assert any("bad_envs.py" in line for line in lines)


def test_a_crash_says_where_the_environment_was(served: Run) -> None:
    code, lines = actor(served, "Crashes", 0)
    assert code == -11
    assert "Fatal Python error: Segmentation fault" in lines
    assert any("bad_envs.py" in line for line in lines)


def test_in_lockstep_nothing_is_made_anew(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo", f"task.env={THERE}:Good-v0", "learner.max_staleness=0")
    run.role("paramserver")
    run.role("learner")
    code, (line,) = actor(run, "Raises", 0)
    assert code == 1
    assert "raised ArithmeticError" in line
    assert line.endswith("; in lockstep (max_staleness 0) nothing is begun anew")


def test_what_fails_once_is_made_anew_and_the_run_goes_on(new_run: Callable[..., Run], tmp_path: Path) -> None:
    once = f'task.kwargs.once="{tmp_path / "failed"}"'
    run = new_run("ppo", f"task.env={THERE}:Nan-v0", once, "actors.processes=1", "run.total_steps=2000")
    code, said = run.end(run.train("--episodes", "2"))
    assert (code, said) == (0, "")
    assert "greedy evaluation: 50.0" in (run.folder / "train.out").read_text()
    assert (tmp_path / "failed").exists()
    line, *more = (run.dir / "logs" / "actor-0.log").read_text().splitlines()
    assert line.endswith("made anew (1 of 3)")
    assert all("has come to its end" in other for other in more), more  # where it hears that before it is ended
    assert run.rows[-1]["rejected"] == {}
    assert bad_envs.GOOD < run.rows[-1]["length_mean"] == 50


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CannotBeMade", "cannot be made: OSError: licence server not found (bad_envs.py, line "),
        ("TextObs", "observation space Text(1, 5, charset="),
        ("DictAction", "action space Dict('a': Discrete(2)) is not supported; Discrete, MultiDiscrete, "),
        ("Goood", "Did you mean: `Good`?"),
    ],
)
def test_what_cannot_be_begun_with_is_one_line_of_usage(new_run: Callable[..., Run], name: str, says: str) -> None:
    run = new_run("ppo", f"task.env={THERE}:{name}-v0")
    for process in (run.train(), run.role("actor")):  # the actor asks nobody: it needs no learner to find out
        code, said = run.end(process)
        assert code == 2, said
        (line,) = said.splitlines()
        assert f"{THERE}:{name}-v0" in line
        assert says in line


def head(run: Run) -> str:
    """The first line of `headrace status`."""
    return headrace("status", str(run.dir)).stdout.partition("\n")[0]


def test_status_says_that_actors_keep_dying_and_why(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo", f"task.env={THERE}:NanReward-v0", "actors.processes=1")
    run.train()
    log = run.dir / "logs" / "actor-0.log"
    run.wait_until(lambda: log.exists() and "did not help" in log.read_text(), "the actor's first death")
    run.wait_until(lambda: run.metrics("learner"), "the learner answers")
    why = r"actors keep dying: actor-0: headrace actor: worker 0: environment .* reward holds nan; .*"
    assert re.fullmatch(why, head(run))


def test_status_says_that_everything_is_refused_and_the_learner_goes_on(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo")
    run.role("paramserver")
    learner = run.role("learner")
    sink = LocalSink(run.config.transport.url, Blueprint(run.config).limits, Metrics("actor"), "0")
    stop = threading.Event()

    def flood() -> None:
        while not stop.wait(0.05):
            sink.put_frame([b"junk" * 20], timeout_s=30)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        run.wait_until(lambda: head(run).startswith("everything is refused (malformed "), "the verdict")
    finally:
        stop.set()
        thread.join()
        sink.close(timeout_s=10)
    assert learner.poll() is None
    assert learner.stderr is not None
    said = r"learner: no new version for 10 s; \d+ fragments wait in the carrier; refused so far: malformed \d+"
    line = next(line for line in learner.stderr if "no new version" in line)
    assert re.fullmatch(said, line.strip()), "the learner says so itself"


def test_status_names_the_worker_that_lockstep_waits_for(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo", "learner.max_staleness=0")
    run.role("paramserver")
    run.role("learner")
    frozen, _ = [run.role("actor", "--index", str(index)) for index in (0, 1)]
    run.wait_for_version(2)
    frozen.send_signal(signal.SIGSTOP)
    run.wait_until(lambda: head(run).startswith("waiting for worker 0 (lease out for "), "its name", timeout_s=15)
    frozen.send_signal(signal.SIGCONT)
    run.wait_for_version(run.version + 2)
