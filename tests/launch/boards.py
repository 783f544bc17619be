"""A real board for tests: the command itself, its address, and whoever calls it."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

Found = TypeVar("Found")


@dataclass(frozen=True)
class RunningBoard:
    """``url`` is the address it printed, token included."""

    url: str
    runs: Path
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0

    @property
    def token(self) -> str:
        return self.url.partition("token=")[2]

    def ask(self, target: str, headers: Mapping[str, str] = {}, method: str = "GET") -> tuple[int, str]:
        """Status and body of one call, sent as it stands: nothing tidies the target up."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.putrequest(method, target, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")

    def allowed(self) -> dict[str, str]:
        """What the browser sends once it has opened the printed address."""
        return {"Cookie": f"headrace_board_{self.port}={self.token}"}


@contextlib.contextmanager
def board(runs: Path) -> Iterator[RunningBoard]:
    """``headrace board RUNS`` on a free port, in the folder above; ended by SIGTERM on leaving, well."""
    runs.parent.mkdir(parents=True, exist_ok=True)
    with open(runs.parent / "board.log", "w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.launch.cli", "board", str(runs), "--port", "0"],
            stdout=subprocess.PIPE, stderr=log, text=True, cwd=runs.parent, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            with process.stdout:
                said = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
                assert said, Path(log.name).read_text()
                yield RunningBoard(said[0], runs, process)
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            assert Path(log.name).read_text() == "", "it had nothing to complain of"
        finally:
            process.kill()
            process.wait()


def until(found: Callable[[], Found], what: str, timeout_s: float = 60.0) -> Found:
    """The first thing that is true."""
    until_s = time.monotonic() + timeout_s
    while not (it := found()):
        assert time.monotonic() < until_s, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
    return it
