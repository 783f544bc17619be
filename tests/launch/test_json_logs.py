"""``--log-format json``: every line of a role is an object, whoever wrote it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from tests.faults.run import Run
from tests.launch.runs import headrace

SPEAKS = """
import logging, sys, threading
from headrace.launch.json_logs import begin
begin("actor")
print("two", "words"); print("half", end=""); print(" a line")
print("to stderr", file=sys.stderr)
logging.getLogger("kafka.conn").warning("a %s", "library")
logging.getLogger("kafka.conn").info("not news")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("x").exception("caught")
thread = threading.Thread(target=lambda: [][0]); thread.start(); thread.join()
raise RuntimeError("the end")
"""


def test_everything_a_process_says_is_an_object() -> None:
    done = subprocess.run([sys.executable, "-c", SPEAKS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(s["level"], s["message"]) for s in said] == [
        ("info", "two words"),
        ("info", "half a line"),
        ("warning", "to stderr"),
        ("warning", "a library"),
        ("error", "caught"),
        ("critical", "IndexError: list index out of range"),
        ("critical", "RuntimeError: the end"),
    ]
    assert all(s["role"] == "actor" and datetime.fromisoformat(s["time"]).tzinfo for s in said)
    assert "ZeroDivisionError" in said[4]["traceback"]
    assert said[3]["logger"] == "kafka.conn"
    assert "the end" in said[6]["traceback"]


def test_a_role_that_is_refused_says_so_as_an_object(tmp_path: Path) -> None:
    done = headrace("paramserver", "--config", str(tmp_path / "none.toml"), "--log-format", "json")
    (line,) = done.stdout.splitlines()
    assert done.returncode == 2
    assert json.loads(line)["message"].startswith("headrace paramserver: ")


def test_a_role_speaks_json_to_its_end(tmp_path: Path) -> None:
    run = Run(tmp_path, "ppo")
    try:
        server = run.role("paramserver", "--log-format", "json")
        run.wait_until(lambda: run.metrics("paramserver"), "the server is there")
        server.terminate()
        server.wait(30)
        lines = (tmp_path / "paramserver.out").read_text().splitlines()
        assert any("listens on" in json.loads(line)["message"] for line in lines)
    finally:
        run.close()


def test_where_a_process_crashed_is_written_all_the_same() -> None:
    """Actors enable faulthandler, which wants a descriptor: what the interpreter writes stays text."""
    crashes = 'import faulthandler; from headrace.launch.json_logs import begin; begin("actor"); print("up")\n'
    crashes += "faulthandler.enable(); faulthandler._sigsegv()"
    done = subprocess.run([sys.executable, "-c", crashes], capture_output=True, text=True)
    assert json.loads(done.stdout)["message"] == "up"
    assert done.stderr.startswith("Fatal Python error: Segmentation fault")
