"""Whose a run directory is: claimed at once or not at all, held until its last process ends, given back untouched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.launch.run_dir import claim, claim_again, claim_next
from tests.faults.run import alive
from tests.observe.test_shows import row


def everything(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def test_names_are_counted_up_and_given_back(tmp_path: Path) -> None:
    first, second = claim_next("ppo", tmp_path / "runs"), claim_next("ppo", tmp_path / "runs")
    assert [c.path.name for c in (first, second)] == ["ppo-1", "ppo-2"]
    (first.path / "config.toml").touch()
    first.abandon()
    assert everything(tmp_path) == ["runs", "runs/ppo-2", "runs/ppo-2/lock"]
    assert claim_next("ppo", tmp_path / "runs").path.name == "ppo-1"


def test_many_at_once_never_get_the_same(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headrace.launch.run_dir import claim_next\n"
        f"input(); print(*[claim_next('ppo', Path({str(tmp_path)!r})).path.name for _ in range(25)])"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = [subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) for _ in range(8)]
    for process in running:
        assert process.stdin is not None
        print(file=process.stdin, flush=True)
    names = [name for process in running for name in process.communicate(timeout=60)[0].split()]
    assert sorted(names) == sorted(f"ppo-{n}" for n in range(1, 201))


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "logs").mkdir(parents=True)
    (mine / "logs" / "notes").write_text("dear diary")
    claimed = claim(mine)
    (claimed.path / "config.toml").touch()
    (mine / "checkpoints").mkdir()
    (mine / "endpoints").mkdir()
    (mine / "endpoints" / "actor-0.json").write_text(f'{{"role": "actor", "index": 0, "pid": {dead()}, "metrics": ""}}')
    claimed.abandon()
    assert everything(tmp_path) == ["mine", "mine/logs", "mine/logs/notes"]


@pytest.mark.parametrize("learnt", ["metrics.jsonl", "checkpoints/ckpt-000000000012/manifest.json"])
def test_what_was_learnt_stays_whatever_ends_it(tmp_path: Path, learnt: str) -> None:
    claimed = claim(tmp_path / "run")
    (claimed.path / learnt).parent.mkdir(parents=True, exist_ok=True)
    (claimed.path / learnt).write_text(json.dumps(row(1200)) + "\n")
    before = everything(tmp_path)
    claimed.abandon()
    assert everything(tmp_path) == before


def test_a_learner_that_has_learnt_nothing_yet_leaves_nothing(tmp_path: Path) -> None:
    claimed = claim(tmp_path / "run")
    for name in ("ckpt-000000000000", "ckpt-000000000000-1"):
        (claimed.path / "checkpoints" / name).mkdir(parents=True)
    (claimed.path / "metrics.jsonl").write_text(json.dumps(row(0)) + "\n")
    claimed.abandon()
    assert everything(tmp_path) == []


def dead() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_run_that_is_alive_is_named_by_its_pid(tmp_path: Path) -> None:
    held = claim(tmp_path / "run")
    for again in (claim, claim_again):
        with pytest.raises(UsageError, match=f"being written by the process with pid {os.getpid()}"):
            again(tmp_path / "run")
    held.close()
    claim_again(tmp_path / "run").close()


def test_a_killed_run_keeps_its_directory_until_its_last_process_has_ended(tmp_path: Path) -> None:
    parent = (
        "import subprocess, sys; from pathlib import Path; from headrace.launch.run_dir import claim\n"
        f"held = claim(Path({str(tmp_path / 'run')!r}))\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1)'], pass_fds=[held.lock])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()  # its child has it as well: to read to its end would be to wait for the child
    assert alive(child)
    claim_again(tmp_path / "run").close()
    assert not alive(child)


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "checkpoints"])
def test_a_directory_with_a_run_in_it_is_not_taken_for_another(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="already holds a run; go on with it by --resume"):
        claim(tmp_path)
    assert everything(tmp_path) == [name]


def test_what_cannot_be_a_run_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    can_be = "name a run directory that can be written by --run-dir"
    read_only = Path("/proc")  # to root as well
    for path in (tmp_path / "file", tmp_path / "file" / "below", read_only / "headrace", read_only):
        with pytest.raises(UsageError, match=f"{path}: .*; {can_be}"):
            claim(path)
    with pytest.raises(UsageError, match=f"{read_only}/ppo-1: .*; {can_be}"):
        claim_next("ppo", read_only)
