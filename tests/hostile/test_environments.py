"""`headrace train` on environments that go wrong: it goes on, or ends in time with a line that says which and why.

The promise: the actor ends with a line that says which environment, which array, which limit (an environment is rebuilt
a documented number of times first; a hang is caught by a watchdog). `train` ends when no actor can go on, and prints
that line. The learner never ends because of what is refused. Nothing is left behind.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .roles import HEADRACE, environ

pytestmark = pytest.mark.timeout(200)
ENDS_S = 90.0
SIDE_BY_SIDE = 3
# What the line must say beside the environment's name, as regular expressions.
ENDS = {
    "NanReward": ["reward", "nan|finite"],
    "HugeReward": ["reward", r"1e\+?30|limit|range|beyond|most"],
    "TextReward": ["reward"],
    "NanObservation": ["obs", "nan|finite"],
    "WrongShape": ["obs", "shape|7"],
    "WrongDtype": ["obs", "dtype|type|U1|str"],
    "NoObservation": ["obs|None"],
    "RaisesInReset": ["the reset is broken"],
    "RaisesInStep": ["the step is broken"],
    "RaisesInInit": ["the constructor is broken"],
    "RaisesSystemExit": ["SystemExit|exit"],
    "Exits0": [r"exit code 0|status 0|code 0"],
    "Exits3": [r"exit code 3|status 3|code 3"],
    "Segfault": ["SIGSEGV|signal 11|Segmentation|-11"],
    "Endless": [r"\d s|hang|hung|seconds|watchdog"],
    "EndlessBusy": ["Timeout"],  # it holds the interpreter's lock: the watchdog can leave a stack, and no line
}
# Nobody in the dead process can name the environment: the line says how the actor died.
DIES = {"Exits0", "Exits3", "Segfault", "EndlessBusy"}
GOES_ON = [
    "Good",
    "Leaks",
    "HugeInfo",
    "Garbage",
    "ClosesFiles",
    "RaisesInStepOnce",
    "NanRewardOnce",
    "ExitsOnce",
]


class Ended(NamedTuple):
    """How a run ended; ``code`` None: it did not."""

    code: int | None
    output: str
    seconds: float
    left: list[str]
    dir: Path

    def logs(self) -> str:
        """What the roles said."""
        return "".join(f"\n-- {p.name}: {p.read_bytes()[-800:]!r}" for p in sorted(self.dir.glob("logs/*")))

    def __str__(self) -> str:
        return f"exit code {self.code} after {self.seconds:.0f} s: {self.output[-2500:]}{self.logs()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for PYTHONPATH, through which every Python process knows the environments."""
    root = tmp_path_factory.mktemp("path")
    shutil.copy(Path(__file__).with_name("environments.py"), root / "hostile_environments.py")
    (root / "sitecustomize.py").write_text("import hostile_environments\n")
    return root


def marked(mark: str) -> list[str]:
    """Processes that were started, by whatever way, by the run with this mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOSTILE_MARK={mark}".encode() in (path / "environ").read_bytes():
                found.append(f"{path.name} {(path / 'cmdline').read_bytes()[:200]!r}")
        except OSError:
            continue
    return found


def train(tmp_path: Path, folder: Path, env: str, *args: str, deadline_s: float = ENDS_S) -> Ended:
    """One `headrace train`, ended after the deadline."""
    mark = secrets.token_hex(8)
    settings = {"run.total_steps": 4000, "actors.envs": 2, "actors.fragment_steps": 16, "actors.processes": 2,
                "actors.step_timeout_s": 2.0}  # fmt: skip
    command = [HEADRACE, "train", "cartpole-ppo", "--run-dir", str(tmp_path / "run"), "--episodes", "0", "--no-gif"]
    command += ["--set", f"task.env={env}", *args]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    known = {"PYTHONPATH": str(folder), "HOSTILE_MARK": mark, "HOSTILE_ONCE": str(tmp_path / "once")}
    began, output = time.monotonic(), tmp_path / "output"
    with open(output, "wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**environ(), **known}, cwd=tmp_path
        )
        try:
            code: int | None = process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            code = None
    seconds = time.monotonic() - began
    if code is None:
        process.terminate()
        try:
            process.wait(30.0)
        except subprocess.TimeoutExpired:
            process.kill()
    left = settled(mark)
    for line in left:
        os.kill(int(line.split()[0]), signal.SIGKILL)
    return Ended(code, output.read_bytes().decode(errors="replace"), seconds, left, tmp_path / "run")


def settled(mark: str, timeout_s: float = 5.0) -> list[str]:
    """What is left of a run a moment after its end."""
    ends = time.monotonic() + timeout_s
    while (left := marked(mark)) and time.monotonic() < ends:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="module")
def trained(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Ended]]:
    """The run of each fault among the tests chosen, some side by side: most of the time they wait."""
    of = [item.callspec.params.get("fault") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        runs = {
            fault: pool.submit(train, tmp_path_factory.mktemp(fault), folder, f"Hostile{fault}-v0")
            for fault in (*ENDS, *GOES_ON)
            if fault in of
        }
        yield lambda fault: runs[fault].result()
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", ENDS)
def test_a_run_that_cannot_go_on_ends_and_says_why(trained: Callable[[str], Ended], fault: str) -> None:
    ended = trained(fault)
    assert ended.code is not None, f"it does not end: {ended}"
    assert ended.code > 0, ended
    assert not ended.left, ended.left
    named = "actor-[01]( died| ended|: )" if fault in DIES else f"Hostile{fault}"
    said = [line for line in ended.output.splitlines() if "steps a version" not in line]
    lines = [line for line in said if re.search(named, line)]
    right = [line for line in lines if all(re.search(word, line, re.IGNORECASE) for word in ENDS[fault])]
    assert right, f"no line with {named!r} and {ENDS[fault]}: {ended}"
    learner = ended.dir / "logs" / "learner-0.log"
    assert not learner.exists() or "Traceback" not in learner.read_text(), ended


@pytest.mark.parametrize("fault", GOES_ON)
def test_a_run_that_can_go_on_comes_to_its_end(trained: Callable[[str], Ended], fault: str) -> None:
    ended = trained(fault)
    assert ended.code == 0, ended
    assert not ended.left, ended.left
    last: dict[str, Any] = json.loads((ended.dir / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["env_steps"] >= 4000, last
    assert last["return_mean"] is None or abs(last["return_mean"]) <= 20.0, last


def test_an_environment_of_a_module_of_ones_own(tmp_path: Path, folder: Path) -> None:
    """As Gymnasium itself names it: module:Name-v0. Without sitecustomize this is the only way."""
    plain = tmp_path / "plain"
    plain.mkdir()
    shutil.copy(folder / "hostile_environments.py", plain)
    ended = train(tmp_path, plain, "hostile_environments:HostileGood-v0")
    assert ended.code == 0, ended


def test_a_module_that_does_not_import_is_one_line(tmp_path: Path, folder: Path) -> None:
    ended = train(tmp_path, folder, "no_such_module_at_all:Nothing-v0")
    assert ended.code == 2, ended
    assert "no_such_module_at_all" in ended.output
    assert "Traceback" not in ended.output
    assert len(ended.output.strip().splitlines()) == 1, ended.output
