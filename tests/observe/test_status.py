"""headrace status against real role processes: up, dead, hanging, lying, and after the end."""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.common.errors import UsageError
from headrace.observe import endpoints, status
from headrace.observe.endpoints import Endpoint
from headrace.observe.rows import MetricsLog
from headrace.observe.scrape import endpoint_of, scrape
from headrace.observe.watch import Watch

ROLE = """
import sys, threading
from pathlib import Path
from headrace.common.metrics import Metrics
from headrace.observe.endpoints import announce
run_dir, role, index, version, *phases = sys.argv[1:]
metrics = Metrics(role)
name = {"paramserver": "weights_version"}.get(role, role + "_policy_version")
metrics.set(name, float(version))
print(announce(Path(run_dir), role, int(index), f"http://127.0.0.1:{metrics.serve(0)}"), flush=True)
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.wait(0.02):
    for phase in phases:
        key, _, value = phase.partition("=")
        metrics.inc(role + "_phase_seconds_total", 0.02 * float(value), phase=key)
    if role != "paramserver":
        metrics.inc(role + "_env_steps_total", 100)
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with contextlib.ExitStack() as stack:

        def begin(role: str, index: int, version: int, **phases: float) -> subprocess.Popen[str]:
            split = [f"{phase}={share}" for phase, share in phases.items()]
            command = [sys.executable, "-c", ROLE, str(tmp_path), role, str(index), str(version), *split]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline().strip().endswith(f"{role}-{index}.json")
            return process

        yield begin


def row(env_steps: int) -> dict[str, object]:
    counters = {"time_s": 12.5, "version": 7, "env_steps": env_steps, "total_steps": 1000, "episodes": 3}
    means = {"return_mean": 1.5, "length_mean": 20.0, "steps_per_s": 80.0, "staleness_mean": 1.0, "staleness_max": 1}
    return counters | means | {"rejected": {}, "phases": {}, "train": {}}


def write_row(run_dir: Path, env_steps: int) -> None:
    log = MetricsLog(run_dir / "metrics.jsonl")
    log.write(row(env_steps))
    log.close()


def command(*words: str) -> tuple[int, argparse.Namespace]:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    args = parser.parse_args([*words, "--window", "0.3"])
    return status.run(args), args


def test_a_run_that_goes_well(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start("learner", 0, 9, wait=0.05, update=0.95)
    start("paramserver", 0, 9)
    start("actor", 0, 8, env=0.5, lease=0.5)
    start("actor", 1, 9, env=0.5, lease=0.5)
    write_row(tmp_path, 500)
    assert command(str(tmp_path))[0] == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("learner too slow: it is busy 95% of its time, actors wait 50% of theirs; try ")
    assert lines[1] == "500 of 1,000 steps in 12 s, return 1.5, version 7, 80 steps/s, 3 episodes"
    table = {line.split()[0]: line.split() for line in lines[4:]}
    assert list(table) == ["actor-0", "actor-1", "learner-0", "paramserver-0"]
    assert table["actor-0"][1] == "up"
    assert table["actor-0"][4:8] == ["8", "1", "lease", "50%"]
    assert command(str(tmp_path), "--json")[0] == 0
    report = json.loads(capsys.readouterr().out)
    assert report["state"] == "running"
    assert report["bottleneck"]["name"] == "learner too slow"
    actor = report["roles"][0]
    assert (actor["role"], actor["index"], actor["version"], actor["lag_versions"]) == ("actor", 0, 8, 1)
    assert actor["phases"]["env"] == pytest.approx(0.5, abs=0.01)
    assert actor["steps_per_s"] > 500
    assert actor["pid"] != os.getpid()


def test_it_says_which_role_is_dead(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start("learner", 0, 9, wait=0.9, update=0.1)
    start("actor", 0, 9, env=1)
    dead = start("actor", 1, 9, env=1)
    dead.kill()
    dead.wait()
    assert command(str(tmp_path))[0] == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("actors too few: the learner waits 90%")
    assert "dead: actor 1 (Connection refused; process gone)" in lines


def test_it_says_why_all_actors_are_dead(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start("learner", 0, 0, wait=1)
    for index in (0, 1):
        dead = start("actor", index, -1)
        dead.kill()
        dead.wait()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "actor-1.log").write_text("actor: made anew\nheadrace actor: worker 1: reward holds nan\n")
    assert command(str(tmp_path))[0] == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "actors keep dying: actor-1: headrace actor: worker 1: reward holds nan"
    assert "dead: actor 0 (Connection refused; process gone)" in lines
    assert "dead: actor 1 (Connection refused; process gone): headrace actor: worker 1: reward holds nan" in lines


@pytest.mark.parametrize(("env_steps", "head", "code"), [(1000, "finished", 0), (999, "stopped before its end", 1)])
def test_after_the_end(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str], env_steps: int, head: str, code: int
) -> None:
    role = start("learner", 0, 7, update=1)
    role.kill()
    role.wait()
    write_row(tmp_path, env_steps)
    assert command(str(tmp_path))[0] == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(head)
    assert f"{env_steps:,} of 1,000 steps" in lines[1]


def test_watch_keeps_the_sentence_fresh(start: Start, tmp_path: Path) -> None:
    watch = Watch(tmp_path, every_s=0.1)
    assert watch.sentence() == ""
    start("learner", 0, 9, wait=0.1, update=0.9)
    actor = start("actor", 0, 9, env=0.4, lease=0.6)
    wait_for(lambda: watch.sentence().startswith("learner too slow"))
    actor.kill()
    wait_for(lambda: watch.sentence() == "actors too few: none answers")


def test_watch_goes_on_saying_that_nothing_is_known(start: Start, tmp_path: Path) -> None:
    start("learner", 0, 9, wait=1)
    start("actor", 0, 0, lease=1)
    watch, said = Watch(tmp_path, every_s=0.05), "not known yet: no actor has finished a fragment"
    wait_for(lambda: watch.sentence().startswith(said))
    until = time.monotonic() + 1  # some twenty rounds
    while time.monotonic() < until:
        assert watch.sentence().startswith(said)
        time.sleep(0.02)


def wait_for(probe: Callable[[], bool], deadline_s: float = 20) -> None:
    until = time.monotonic() + deadline_s
    while not probe():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_by_url(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start("learner", 0, 3, update=1)
    start("actor", 0, 3, env=0.1, lease=0.9)
    urls = [word for e in endpoints.read(tmp_path) for word in ("--url", e.metrics)]
    assert command(*urls)[0] == 0
    out = capsys.readouterr().out
    assert out.startswith("learner too slow")
    assert "learner-0" in out


def test_where_nobody_answers_nothing_is_made_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--url", "http://127.0.0.1:1")[0] == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "nobody answers at the addresses given; whether the run goes on cannot be told from here"
    assert "http://127.0.0.1:1" in second


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a run directory, or --url"),
        (["/nonexistent"], "/nonexistent: no run"),
        (["--url", "localhost:9100"], "metrics address 'localhost:9100': use http://host:port"),
        (["--url", "file:///etc/passwd"], "use http://host:port"),
    ],
)
def test_bad_usage_is_one_line(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        command(*words)
    assert "\n" not in str(caught.value)


# --- scrape and endpoints ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """Something that is not a role: takes one connection, says ``answer`` (or nothing) and keeps it open."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                kept.append(connection)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(5)
        for connection in kept:
            connection.close()


def http(body: bytes, status_line: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.0 " + status_line + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "no answer in 0.3 s"),
        (b"HTTP/1.0 200 OK\r\n\r\n# HELP", "no answer in 0.3 s"),
        (b"220 smtp ready\r\n\r\n", "220"),
        (http(b"", b"404 Not Found"), "HTTP 404"),
        (http(b"not metrics at all {"), ""),
        (http(b"\xff\xfe"), "utf-8"),
        (http(b"up 1\n"), "not a role of ours"),
        (http(b'headrace_role_info{role="actor"} 1\n'), "what answers there is actor"),
        (http(b"#" * (4 << 20) + b"\n#\n"), "bytes of metrics"),
    ],
    ids=["silent", "half", "smtp", "404", "text", "binary", "stranger", "other role", "huge"],
)
def test_what_is_no_role_is_an_error_within_the_deadline(answer: bytes, error: str) -> None:
    with listener(answer) as url:
        began = time.monotonic()
        (got,) = scrape([Endpoint("learner", 0, 0, url)], deadline_s=0.3)
        assert time.monotonic() - began < 2
    assert not got.up
    assert error in got.error


def test_many_are_asked_at_once() -> None:
    with contextlib.ExitStack() as stack:
        silent = [Endpoint("actor", i, 0, stack.enter_context(listener(b""))) for i in range(20)]
        began = time.monotonic()
        got = scrape(silent, deadline_s=0.5)
        assert time.monotonic() - began < 2
    assert [s.endpoint.index for s in got] == list(range(20))
    assert not any(s.up for s in got)


def test_announce_read_and_withdraw(tmp_path: Path) -> None:
    assert endpoints.read(tmp_path) == []
    endpoints.announce(tmp_path, "actor", 10, "http://127.0.0.1:1")
    path = endpoints.announce(tmp_path, "actor", 2, "http://127.0.0.1:2")
    endpoints.announce(tmp_path, "actor", 2, "http://127.0.0.1:3")
    assert json.loads(path.read_text()) == {
        "role": "actor",
        "index": 2,
        "pid": os.getpid(),
        "metrics": "http://127.0.0.1:3",
    }
    assert [(e.index, e.metrics) for e in endpoints.read(tmp_path)] == [
        (2, "http://127.0.0.1:3"),
        (10, "http://127.0.0.1:1"),
    ]
    assert sorted(p.name for p in path.parent.iterdir()) == ["actor-10.json", "actor-2.json"]
    endpoints.withdraw(path)
    endpoints.withdraw(path)
    assert [e.index for e in endpoints.read(tmp_path)] == [10]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"role": "actor"}', '{"role": "a", "index": "x", "pid": 1, "metrics": ""}']
)
def test_a_spoilt_endpoint_file_is_named(tmp_path: Path, text: str) -> None:
    path = endpoints.announce(tmp_path, "actor", 0, "http://127.0.0.1:1")
    path.write_text(text)
    with pytest.raises(UsageError, match=r"actor-0\.json: not an endpoint"):
        endpoints.read(tmp_path)


def test_endpoint_of() -> None:
    assert endpoint_of("http://h:9100") == Endpoint("", 0, 0, "http://h:9100")


def test_commands_are_light_to_import() -> None:
    """`headrace --help` lists them all: importing them must not load what only running them needs."""
    heavy = "torch numpy grpc kafka rich matplotlib tensorboard prometheus_client psutil packaging"
    code = "import sys, headrace.observe.status, headrace.observe.doctor\n"
    code += f"print(set('{heavy}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
