"""A run by single roles, as on a cluster: what its learner leaves is what `headrace train` leaves."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from headrace.learner.checkpoint_reader import latest
from tests.faults.run import Run

from .runs import headrace

SHORT = ("actors.processes=1", "run.total_steps=2000", "run.snapshot_every_steps=500")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run whose learner came to its end, with an evaluation of 4 episodes."""
    run = Run(tmp_path_factory.mktemp("roles"), "ppo", *SHORT)
    run.role("paramserver")
    learner = run.role("learner", "--episodes", "4")
    run.role("actor")
    code, said = run.end(learner)
    assert code == 0, said
    yield run
    run.close()


def test_it_leaves_the_directory_that_train_leaves(finished):
    there = {path.name for path in finished.dir.iterdir()}
    assert there >= {"config.toml", "plan.json", "metrics.jsonl", "tensorboard", "returns.png", "checkpoints",
                     "result.json", "snapshots"}  # fmt: skip
    assert "networks: pi " in (finished.folder / "learner.out").read_text()
    assert (finished.dir / "config.toml").read_text() == finished.config.to_toml()
    assert stat.S_IMODE((finished.dir / "config.toml").stat().st_mode) == 0o600
    result = json.loads((finished.dir / "result.json").read_text())
    assert result["env_steps"] >= 2000
    assert result["evaluation"]["episodes"] == 4
    board = EventAccumulator(str(finished.dir / "tensorboard"))
    board.Reload()
    assert [e.step for e in board.Scalars("speed/version")] == [row["env_steps"] for row in finished.rows]


@pytest.mark.parametrize("which", ["newest", "best", "checkpoint", "snapshot"])
def test_it_can_be_evaluated(finished, which):
    newest = latest(finished.dir / "checkpoints")
    assert newest is not None
    first, *_ = sorted((finished.dir / "snapshots").glob("*.safetensors"), key=lambda p: int(p.stem))
    more = {
        "newest": [],
        "best": ["--best"],
        "checkpoint": ["--checkpoint", str(newest.path)],
        "snapshot": ["--checkpoint", str(first)],
    }[which]
    done = headrace("evaluate", str(finished.dir), "--episodes", "4", "--json", *more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if which == "snapshot":
        assert (found["version"], found["env_steps"]) == (0, 0)
    else:
        assert found["returns"] == json.loads((finished.dir / "result.json").read_text())["evaluation"]["returns"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere: no such directory"),
        (["."], "is no run directory: it holds no config.toml"),
        (["RUN", "--checkpoint", "nowhere"], "no readable manifest.json (No such file or directory)"),
        (["RUN", "--checkpoint", "nowhere.safetensors"], "no such snapshot"),
        (["RUN", "--checkpoint", "bad.safetensors"], "is no snapshot of this program"),
        (["RUN", "--best", "--checkpoint", "x"], "not allowed with argument"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(finished, tmp_path, arguments, says):
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    words = [str(finished.dir) if word == "RUN" else word for word in arguments]
    done = headrace("evaluate", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    *usage, last = done.stderr.strip().splitlines()
    assert says in last
    assert not usage or usage[0].startswith("usage:")


def test_best_says_where_it_would_come_from(tmp_path, finished):
    (tmp_path / "config.toml").write_text(finished.config.to_toml())
    done = headrace("evaluate", str(tmp_path), "--best")
    assert done.returncode == 2
    assert "the evaluations of a training leave it" in done.stderr


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff" * 100])
def test_a_damaged_best_is_one_line(tmp_path, finished, content):
    (tmp_path / "config.toml").write_text(finished.config.to_toml())
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "policy.safetensors").write_bytes(content)
    done = headrace("evaluate", str(tmp_path), "--best")
    assert (done.returncode, "is no snapshot of this program" in done.stderr) == (2, True), done.stderr


def test_a_finished_run_started_again_says_so_and_a_fresh_start_is_refused(finished):
    finished.wait_until(lambda: not finished.pids(), "the others have ended with their run")
    before = {p: p.read_bytes() for p in finished.dir.rglob("*") if p.is_file() and p.name != "lock"}
    again = finished.role("learner", "--resume")
    assert finished.end(again) == (0, "")
    assert "is finished: " in (finished.folder / "learner.out").read_text()
    code, said = finished.end(finished.role("learner"))
    assert code == 2
    assert "already holds a run; go on by --resume" in said
    code, said = finished.end(finished.role("learner", "--resume", "--set", "task.env=Acrobot-v1"))
    assert code == 2
    assert "--init-from RUN" in said
    staying = finished.role("learner", "--resume", "--stay")
    finished.wait_until(lambda: finished.pid("learner") == staying.pid, "the learner is there, though it is done")
    staying.terminate()
    assert finished.end(staying) == (0, "")
    assert {path: path.read_bytes() for path in before} == before


def test_it_goes_on_with_other_settings_and_keeps_the_former(finished):
    """Last: it changes the run."""
    finished.wait_until(lambda: not finished.pids(), "those of before have ended with their run")
    learner = finished.role("learner", "--resume", "--episodes", "0", "--set", "run.total_steps=4000")
    finished.role("paramserver")
    finished.role("actor")
    code, said = finished.end(learner)
    assert code == 0, said
    (line,) = [json.loads(line) for line in (finished.dir / "history.jsonl").read_text().splitlines()]
    assert (line["key"], line["former"], line["new"]) == ("run.total_steps", 2000, 4000)
    result = json.loads((finished.dir / "result.json").read_text())
    assert result["evaluation"] is None
    assert result["env_steps"] >= 4000


@pytest.fixture
def new_run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(*settings: str) -> Run:
        runs.append(Run(tmp_path, "ppo", *settings))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def test_actors_without_an_index_share_out_the_numbers_and_all_go_home_with_their_learner(new_run):
    """In lockstep nothing moves unless each of them is another worker."""
    run = new_run("learner.max_staleness=0", "run.total_steps=2000")
    learner = run.role("learner", "--episodes", "0")
    others = {name: run.role(*name.split()) for name in ("paramserver", "actor", "actor --metrics-port 0", "evaluator")}
    code, said = run.end(learner)
    assert code == 0, said
    for name, process in others.items():
        code, said = run.end(process)
        assert code == 0, (name, said)


def test_who_stays_waits_for_the_next_learner_and_is_healthy(new_run):
    """As a platform wants it that starts again whatever ends."""
    run = new_run("actors.processes=1")
    staying, visitor = {"paramserver": run.role("paramserver", "--stay")}, run.role("actor")
    for life, linger_s in enumerate((7.0, 2.0, 2.0), start=1):  # as long as who does not stay would take to go
        learner = run.role("learner", "--resume", "--episodes", "0", "--set", f"run.total_steps={2000 * life}")
        code, said = run.end(learner)
        assert code == 0, (life, said)
        if life == 1:
            assert run.end(visitor)[0] == 0, "and nobody calls the parameter server any more"
        time.sleep(linger_s)
        assert {name: process.poll() for name, process in staying.items()} == dict.fromkeys(staying)
        assert all(run.metrics(role)[("up_seconds",)] > linger_s for role in staying), "they answer"
        if life == 1:
            staying |= {name: run.role(name, "--stay") for name in ("actor", "evaluator")}
    assert run.checkpoint().info["learner_epoch"] == life
    for process in staying.values():
        process.terminate()
    assert {name: run.end(process)[0] for name, process in staying.items()} == dict.fromkeys(staying, 0)
