"""Folders of sockets: as long as somebody uses them, and no longer than until the next start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.launch.socket_dir import (
    held_socket_dir,
    hold_socket_dir,
    remove_dead_socket_dirs,
    socket_dir,
    used_socket_dir,
)

HOLD = "import sys, time; from headrace.launch.socket_dir import *; hold_socket_dir(socket_dir(sys.argv[1])); "


@pytest.fixture(autouse=True)
def tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def holder(run_id: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", HOLD + "print('held', flush=True); time.sleep(60)", run_id]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_it_is_private_and_goes_with_its_last_user(tmpdir: Path) -> None:
    with held_socket_dir(socket_dir("a")):
        with held_socket_dir(socket_dir("a")):
            assert socket_dir("a").stat().st_mode & 0o777 == 0o700
        assert socket_dir("a").is_dir()
    assert list(tmpdir.iterdir()) == []


def test_asking_for_its_place_leaves_nothing_for_who_is_killed_meanwhile(tmpdir: Path) -> None:
    """As tempfile's trial of a directory would."""
    program = (
        "import sys\n"
        "from headrace.launch.socket_dir import *\n"
        "sys.addaudithook(lambda event, args: print(event, args) if event in ('open', 'os.mkdir') else None)\n"
        "print(socket_dir('a'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{socket_dir('a')}\n"


def test_one_that_a_killed_run_left_goes_at_the_next_start_and_no_other(tmpdir: Path) -> None:
    living, killed = holder("living"), holder("killed")
    (socket_dir("killed") / "weights").touch()
    (tmpdir / "headrace-notes").mkdir()  # somebody's own
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert socket_dir("killed").is_dir()
    remove_dead_socket_dirs()
    with held_socket_dir(socket_dir("new")):
        assert {p.name for p in tmpdir.iterdir()} == {
            "headrace-notes", socket_dir("living").name, socket_dir("new").name
        }  # fmt: skip
    living.kill()
    living.communicate()


def test_many_that_start_and_end_at_once_never_lose_theirs(tmpdir: Path) -> None:
    code = (
        "import os; from headrace.launch.socket_dir import *\n"
        "folder = socket_dir('shared')\n"
        "for i in range(200):\n"
        "    fd = hold_socket_dir(folder)\n"
        "    assert os.path.samestat(os.fstat(fd), os.stat(folder / 'held'))\n"
        "    release_socket_dir(folder, fd)\n"
        "    remove_dead_socket_dirs()\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0] * 4
    remove_dead_socket_dirs()
    assert list(tmpdir.iterdir()) == []


def test_a_run_that_began_under_another_tmpdir_keeps_its_folder(tmpdir: Path) -> None:
    name = socket_dir("run").name
    there = used_socket_dir("run", f"local:///elsewhere/{name}/trajectories", "127.0.0.1:7000")
    assert there == Path("/elsewhere") / name
    assert used_socket_dir("run", "kafka://h:9092/t", f"unix:{socket_dir('run')}/weights") == socket_dir("run")
    assert used_socket_dir("run", "kafka://h:9092/t", "unix:/run/mine/weights") is None


def test_a_place_that_cannot_be_had_says_so(tmpdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket_dir("a").touch()
    with pytest.raises(UsageError, match="set TMPDIR"):
        hold_socket_dir(socket_dir("a"))
    monkeypatch.setenv("TMPDIR", str(tmpdir / "nowhere"))
    with pytest.raises(UsageError, match="set TMPDIR"):
        hold_socket_dir(socket_dir("b"))
    assert os.listdir(tmpdir) == [socket_dir("a").name]
