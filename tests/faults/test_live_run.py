"""A run that is alive is nobody else's: what is started beside it by mistake is refused and touches nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from headrace.launch.socket_dir import socket_dir
from tests.faults.run import Run


def belongings(run: Run) -> dict[str, int]:
    """Inode of everything by which others find the run: sockets, endpoints, config."""
    places = [socket_dir(run.config.run.id), run.dir / "endpoints"]
    files = [p for place in places for p in place.iterdir()]
    return {str(p): p.stat().st_ino for p in (*files, run.dir / "config.toml")}


def test_resuming_a_run_that_is_alive_is_refused_and_touches_nothing(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo")
    train = run.train()
    run.wait_for_version(10)
    run.wait_until(lambda: len(run.pids()) == 4 and run.metrics("actor", 1), "all roles")
    before, lives, config = belongings(run), run.pids(), Path(run.dir / "config.toml").read_bytes()
    assert {Path(p).name for p in before} >= {"weights", "trajectories", "actor-0.json", "config.toml"}
    began = time.monotonic()
    code, said = run.end(run.train("--set", "run.seed=7", resume=True))
    assert (code, said.count("\n")) == (2, 1), said
    assert f"{run.dir} is being written by the process with pid {train.pid}: stop it first" in said
    assert time.monotonic() - began < 20
    code, said = run.end(run.role("learner"))
    assert (code, f"with pid {train.pid}: stop it first" in said) == (2, True), said
    assert (belongings(run), run.pids(), (run.dir / "config.toml").read_bytes()) == (before, lives, config)
    run.kill("actor", 0)  # whoever starts now needs the sockets and the endpoints
    run.wait_until(lambda: run.pid("actor", 0) not in (None, *lives), "the actor is back")
    run.wait_for_version(run.version + 50)
    train.terminate()
    assert run.end(train) == (0, "")
    assert list(run.dir.glob("endpoints/*")) == []


def test_a_run_whose_directory_is_removed_says_why_it_ended(new_run: Callable[..., Run]) -> None:
    run = new_run("ppo")
    train = run.train()
    run.wait_until(lambda: all(run.metrics("actor", index) for index in range(2)), "all roles have started")
    run.wait_until(lambda: "staleness" in (run.folder / "train.out").read_text(), "train reads the rows")
    run.wait_for_version(run.version + 5)
    shutil.rmtree(run.dir.rename(run.folder / "gone"), ignore_errors=True)  # at once: it is being written
    code, said = run.end(train)
    assert code == 1, said
    before, last = said.strip().splitlines()[:-1], said.strip().splitlines()[-1]
    assert last.startswith("learner-0 died (exit code 1); go on with: "), said
    assert any("No such file or directory" in line for line in before), said
