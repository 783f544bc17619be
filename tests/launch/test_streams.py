"""stdin, stdout and stderr as a terminal never has them: closed, or of an encoding that lacks what is said."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HEADRACE = [sys.executable, "-m", "headrace.launch.cli"]
#: Which descriptors are in use once they are mended, and what is at each; then something is opened.
LOOK = """
import os, sys
from headrace.launch import streams
streams.mend()
print("said")
print("said too", file=sys.stderr, flush=True)
sys.stdin.read()
opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
assert opened > 2, opened
children = "import os; [os.fstat(number) for number in range(3)]"
sys.exit(__import__("subprocess").run([sys.executable, "-c", children]).returncode)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_is_the_null_device(tmp_path: Path, closed: str) -> None:
    command = f"{shlex.join([sys.executable, '-c', LOOK, str(tmp_path / 'file')])} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("" if " >&-" in f" {closed}" else "said\n")
    assert done.stderr == ("" if "2>&-" in closed else "said too\n")
    assert (tmp_path / "file").read_bytes() == b""


def test_training_needs_no_terminal_at_all(tmp_path: Path) -> None:
    words = ["train", "cartpole-ppo", "--set", "run.total_steps=4_000", "--episodes", "1", "--no-gif", "--run-dir"]
    command = f"{shlex.join([*HEADRACE, *words, str(tmp_path / 'run')])} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], timeout=100).returncode == 0
    assert (tmp_path / "run" / "returns.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("encoding", "said"), [("ascii", b"500 \\xb1 3\n"), ("latin-1", b"500 \xb1 3\n"), ("utf-8", b"500 \xc2\xb1 3\n")]
)
def test_a_character_that_the_encoding_lacks_is_escaped(encoding: str, said: bytes) -> None:
    code = "from headrace.launch import streams; streams.mend(); print('500 \\xb1 3')"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True, timeout=60)
    assert done.stdout == said
